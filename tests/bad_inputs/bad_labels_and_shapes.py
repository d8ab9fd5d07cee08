"""Inputs that do not fit the network: classes, labels, image sizes and channels."""

import logging

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import STREAM, Bench, Case, changed, image_folder, on_folder, refused

from cnn_jax import weights
from cnn_jax.data.sources import Source
from cnn_jax.train.run import build
from cnn_jax.train.session import evaluate_run, train
from cnn_jax.weights import files

MODEL, CLASSES = "squeezenet1_1", 5
SMALLEST = {"lenet5": 16, "alexnet": 63, "vgg11": 32}
"""Smallest image of networks that digits of 8×8 pixels are too small for."""
SLOW_SMALLEST = {"inception_v3": 75, "densenet121": 29, "googlenet": 15, "squeezenet1_1": 17, "all_cnn_c": 9}


def weights_file(bench: Bench) -> tuple[str, dict[str, np.ndarray]]:
    """A file of a small network's weights with five classes, in torch's names."""
    whole, _, _ = bench.fixture("golden").load(MODEL)
    state = {key: value[:CLASSES] if key.startswith("classifier") else value for key, value in whole.items()}
    files.write_safetensors(bench.path / "weights.safetensors", state, metadata={"format": "pt"})
    return str(bench.path / "weights.safetensors"), state


def other_classes_than_the_weights(bench: Bench) -> None:
    path, _ = weights_file(bench)
    names = "params/head/output/bias, params/head/output/kernel"
    refused(
        rf"the weights have 5 classes, the model 7: give new_head=jax\.random\.key\(0\) to initialise {names} anew"
        r" \(shapes \(5,\) -> \(7,\), \(1, 1, 512, 5\) -> \(1, 1, 512, 7\)\)",
        *(weights.load, MODEL, path),
        num_classes=7,
    )
    caplog = bench.fixture("caplog")
    with caplog.at_level(logging.WARNING):
        adapted = weights.load(MODEL, path, num_classes=7, new_head=jax.random.key(0))
    assert f"initialised anew for 7 classes: {names}" in caplog.text
    given = weights.load(MODEL, path)
    jax.tree.map(np.testing.assert_array_equal, adapted["params"]["backbone"], given["params"]["backbone"])
    assert adapted["params"]["head"]["output"]["kernel"].shape == (1, 1, 512, 7)


def other_classes_than_the_checkpoint(bench: Bench) -> None:
    run = bench.fixture("copy_of_a_run")
    config = run / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"num_classes": 10', '"num_classes": 12'))
    refused(r"of another model: it has float32\[.*10\] for .*, this config has float32\[.*12\]", evaluate_run, run)


def other_classes_on_resuming(bench: Bench) -> None:
    run, config = bench.fixture("copy_of_a_run"), changed(bench.config, "model.num_classes", 12)
    refused(r"different config \(config\.model\.num_classes: 10 -> 12\)", train, config, run, resume=True)


def too_few_classes_in_the_config(bench: Bench) -> None:
    message = r"sklearn/digits/train.*: example \d+ has label [5-9], outside \[0, 5\); .* set model\.num_classes"
    refused(message, train, changed(bench.config, "model.num_classes", 5), bench.path / "run")
    assert not (bench.path / "run").exists()


def too_few_classes_for_a_stream(bench: Bench) -> None:
    root = image_folder(bench.path / "images", classes=("ant", "bee", "cow"))
    config = changed(on_folder(bench.config, root, **STREAM), "model.num_classes", 2)
    refused(r"folder/images/train: example 16 has label 2, outside \[0, 2\)", train, config, bench.path / "run")


def arrays_with_labels(bench: Bench, labels: np.ndarray, **others: np.ndarray) -> dict:
    """The config on ten images in a file, the labels those of training and test."""
    images = np.zeros((len(labels), 8, 8), np.uint8)
    stored = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels, **others}
    np.savez(bench.path / "a.npz", allow_pickle=False, **stored)
    data = {"source": "arrays", "name": str(bench.path / "a.npz"), "splits": {"train": "train", "test": "test"}}
    return {**bench.config, "data": {**data, "batch_size": 4}}


def too_large_a_label_in_arrays(bench: Bench) -> None:
    labels = np.arange(10) % 3
    config = arrays_with_labels(bench, labels, test_labels=np.where(np.arange(10) == 6, 7, labels))
    refused(r"a\.npz/test: example 6 has label 7, outside \[0, 3\)", build, changed(config, "model.num_classes", 3))
    config = arrays_with_labels(bench, labels + 2**40)
    refused(r"train_labels has label 1099511627776 at row 0.*classes are counted from 0, and 1,048,576", build, config)


def parquet_with_labels(bench: Bench, labels: list[int]) -> dict:
    """The config on as many images in a parquet file whose metadata name three classes."""
    png = (image_folder(bench.path / "images") / "train" / "cat" / "0.png").read_bytes()
    table = pa.table({"image": pa.array([png] * len(labels), pa.binary()), "label": pa.array(labels, pa.int64())})
    features = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["ant", "bee", "cow"]}}}}'
    (bench.path / "set").mkdir()
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), bench.path / "set" / "train.parquet")
    data = {"source": "parquet", "name": str(bench.path / "set"), "splits": {"train": "train"}, "batch_size": 2}
    return {**bench.config, "model": {"name": "mlp", "hidden": ()}, "data": data}


def too_large_a_label_in_parquet(bench: Bench) -> None:
    config = parquet_with_labels(bench, [0, 1, 5, 2])
    refused(r"set', split 'train': row 2 has label 5, outside \[0, 3\)", build, config)


def minus_one_in_arrays(bench: Bench) -> None:
    config = arrays_with_labels(bench, np.array([0, 1, 2, -1, 1]))
    refused(r"a\.npz: train_labels has label -1 at row 3, .*; classes are counted from 0", build, config)


def minus_one_in_parquet(bench: Bench) -> None:
    config = parquet_with_labels(bench, [0, 1, 2, -1])
    message = r"parquet/set/train: example 3 has label -1, outside \[0, 3\); mend the data"
    refused(message, build, config)
    for name in ("mean", "std"):
        config = changed(config, f"data.{name}", (0.5,) * 3)
    refused(message, build, changed(config, "data.stream", {}))
    wrapper = {"train": ({"name": "label_noise", "rate": 0.5},)}
    message = "example 3 has label -1, no class; wrappers need the labels; mend the data"
    refused(message, build, changed(config, "data.wrappers", wrapper))


def minus_one_from_a_source_of_ones_own(bench: Bench) -> None:
    labels = np.where(np.arange(100) == 17, -1, 1).astype(np.int32)
    images = np.zeros((100, 8, 8, 1), np.uint8)
    names = tuple("0123456789")
    sizes = {"train": 100, "test": 100}
    source = Source("mine", names, sizes, load_range=lambda _, start, stop: (images[start:stop], labels[start:stop]))
    refused(r"mine/train\[:64\]: example 17 has label -1, outside \[0, 10\)", build, bench.config, source=source)


def smallest_images(bench: Bench) -> None:
    for name, smallest in SMALLEST.items():
        smallest_image_of(bench, name, smallest)


def more_smallest_images(bench: Bench) -> None:
    for name, smallest in SLOW_SMALLEST.items():
        smallest_image_of(bench, name, smallest)


def smallest_image_of(bench: Bench, name: str, smallest: int) -> None:
    model = {"name": name, "in_channels": 1, **({"padding": 0} if name == "lenet5" else {})}
    refused(
        rf"{name} on sklearn/digits/train\[:64\]: images of 8×8 are too small for this network; it takes at least"
        rf" {smallest}×{smallest} \(layer '",
        build,
        {**bench.config, "model": model},
    )


def grey_images_for_a_colour_network(bench: Bench) -> None:
    message = "images have 1 channels?, but the model was built for 3; .*model.in_channels=1"
    refused(message, train, changed(bench.config, "model.in_channels", 3), bench.path / "run")


def grey_files_become_equal_colours(bench: Bench) -> None:
    root = image_folder(bench.path / "images", mode="L")
    images = build(on_folder(bench.config, root)).splits["train"].images
    assert images.shape == (16, 8, 8, 3)
    assert (images == images[..., :1]).all()
    grey = changed(on_folder(bench.config, root, channels=1), "model.in_channels", 1)
    np.testing.assert_array_equal(build(grey).splits["train"].images, images[..., :1])


def weights_for_other_channels(bench: Bench) -> None:
    path, _ = weights_file(bench)
    kernels = {
        channels: np.asarray(
            weights.load(MODEL, path, in_channels=channels)["params"]["backbone"]["stem"]["conv"]["kernel"]
        )
        for channels in (1, 3, 4)
    }
    np.testing.assert_array_equal(kernels[1], kernels[3].sum(axis=2, keepdims=True))
    np.testing.assert_array_equal(kernels[4], kernels[3][:, :, [0, 1, 2, 0]] * np.float32(3 / 4))


WRONG_CLASSES = (
    Case("weights with other classes", other_classes_than_the_weights),
    Case("checkpoint with other classes", other_classes_than_the_checkpoint),
    Case("resumed with other classes", other_classes_on_resuming),
)
LARGE_LABEL = (
    Case("in memory", too_few_classes_in_the_config),
    Case("in a stream", too_few_classes_for_a_stream),
    Case("in arrays", too_large_a_label_in_arrays),
    Case("in parquet", too_large_a_label_in_parquet),
    "test_a_label_that_is_no_class_gives_nan_in_loss_and_gradient_of_its_example_only",
)
MINUS_ONE = (
    Case("in arrays", minus_one_in_arrays),
    Case("in parquet, in memory and streamed", minus_one_in_parquet),
    Case("in a source of one's own", minus_one_from_a_source_of_ones_own),
    "test_a_label_that_is_no_class_gives_nan_in_loss_and_gradient_of_its_example_only",
)
SMALL_IMAGE = (
    Case("plain networks", smallest_images),
    Case("deep networks", more_smallest_images, slow=True),
    "test_the_smallest_image_and_no_smaller_one",
)
GREY = (
    Case("a config says what to set", grey_images_for_a_colour_network),
    Case("files are decoded to what is asked for", grey_files_become_equal_colours),
    Case("weights are adapted", weights_for_other_channels),
)
