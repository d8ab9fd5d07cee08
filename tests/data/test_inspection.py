"""Inspections find what was planted: copies, leaks, damaged and misnamed files, empty classes; and count exactly."""

import collections

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cnn_jax.data.duplicates import find_copies
from cnn_jax.data.examples import ArrayExamples
from cnn_jax.data.folder import folder_source
from cnn_jax.data.inspection import inspect_split, moments
from cnn_jax.data.samples import augmented, batches_in_memory, choose_samples, streamed_batches
from cnn_jax.data.sources import open_source
from cnn_jax.data.stream import StreamedImages
from cnn_jax.data.transform import training_transform
from cnn_jax.errors import UserError
from cnn_jax.train.config import Data
from cnn_jax.train.data_figures import class_balance, image_sizes, samples
from cnn_jax.train.data_report import describe, markdown, sections
from cnn_jax.train.splits import normalisation

GENERATOR = np.random.default_rng(0)


def ignore(count):
    """Progress that nobody looks at."""


def inspect_arrays(images, labels, *, classes=2, **options):
    examples = ArrayExamples(images, np.asarray(labels), "a set")
    options = {"channels": None, "transforms": (), "progress": ignore, **options}
    return inspect_split(examples, np.arange(len(images)), np.asarray(labels, np.int32), classes=classes, **options)


def inspect_folder(root, split="train", **options):
    source = folder_source(str(root), directory=None, split_seed=0)
    chosen = source.select(split, ())
    options = {"channels": 3, "transforms": (), "progress": ignore, **options}
    examples = source.examples(chosen.split)
    return inspect_split(examples, chosen.indices, chosen.labels, classes=len(source.class_names), **options)


def description(inspections, names=("cat", "dog")):
    return describe(
        inspections,
        origins={split: f"set/{split}" for split in inspections},
        class_names=names,
        name_of=lambda split, place: f"{split}[{place}]",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of unequal sizes in two classes, and what goes wrong with such folders."""
    root = tmp_path_factory.mktemp("photographs")
    for name in ("china", "flower"):
        whole = load_sample_image(f"{name}.jpg")
        for split, count, top in (("train", 5, 200), ("validation", 2, 100)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                cut = whole[top + 10 * number : top + 10 * number + 40 + number, 200:250]
                Image.fromarray(cut).save(root / split / name / f"{number}.jpg")
    china, flower = root / "train" / "china", root / "train" / "flower"
    with Image.open(china / "0.jpg") as image:
        image.convert("L").save(china / "grey.png")
    Image.fromarray(GENERATOR.integers(0, 2**16, (9, 11)).astype(np.uint16)).save(china / "deep.png")
    with Image.open(flower / "1.jpg") as image:
        image.save(flower / "misnamed.jpg", format="PNG")  # and a copy of 1.jpg
    content = (flower / "2.jpg").read_bytes()
    (flower / "cut.jpg").write_bytes(content[: 3 * len(content) // 4])
    (flower / "text.png").write_text("no image")
    (root / "validation" / "flower" / "leak.jpg").write_bytes((china / "3.jpg").read_bytes())
    return root


def test_a_folder_with_all_that_can_be_wrong(folder):
    found = inspect_folder(folder)
    assert found.class_counts.tolist() == [7, 8]
    assert [line.split("'")[1].rsplit("/", 1)[1] for line in found.corrupt] == ["cut.jpg", "text.png"]
    [line] = found.misnamed
    assert line.endswith("misnamed.jpg' is PNG")
    assert found.readable.sum() == 13
    sizes = collections.Counter()
    for path in sorted(folder.glob("train/*/*")):
        if path.name not in ("cut.jpg", "text.png"):
            with Image.open(path) as image:
                sizes[image.size[::-1]] += 1
    assert found.sizes == sizes
    assert found.forms == {"JPEG, RGB": 10, "PNG, RGB": 1, "PNG, grey": 1, "PNG, grey, 16 bits": 1}


def test_copies_and_leaks_in_a_folder(folder):
    inspections = {split: inspect_folder(folder, split) for split in ("train", "validation")}
    leak, copy = find_copies(inspections, mirrored=False)
    assert (leak.leak, leak.conflict, copy.leak, copy.conflict) == (True, True, False, False)
    found = description(inspections, ("china", "flower"))
    assert found["copies"]["equal"]["across_splits"] == found["copies"]["equal"]["different_labels"] == 1
    assert [one["class"] for one in found["copies"]["equal"]["listed"][0]["members"]] == ["china", "flower"]
    assert found["findings"] == [
        "leakage: 1 image in more than one split",
        "train: 2 of 15 images cannot be read",
    ]


@pytest.mark.parametrize("shape", [(2, 2, 1), (1, 2, 3), (4, 1), (1, 2, 2, 1)])
def test_copies_are_those_that_comparing_all_images_finds(shape):
    # Two levels make copies and mirror images plentiful.
    splits = {
        name: GENERATOR.integers(0, 2, (count, *shape), np.uint8) for name, count in (("a", 9), ("b", 0), ("c", 7))
    }
    labels = {name: GENERATOR.integers(0, 2, len(images)) for name, images in splits.items()}
    inspections = {name: inspect_arrays(splits[name], labels[name]) for name in splits}
    for mirrored in (False, True):
        groups = collections.defaultdict(list)
        for name, images in splits.items():
            for place, image in enumerate(images):
                forms = {image.tobytes()}
                if mirrored and len(shape) == 3:
                    forms.add(np.flip(image, axis=1).tobytes())
                groups[frozenset(forms)].append((name, place))
        expected = {}
        for members in groups.values():
            different = {splits[name][place].tobytes() for name, place in members}
            if len(members) > 1 and (not mirrored or len(different) > 1):
                conflict = len({int(labels[name][place]) for name, place in members}) > 1
                expected[tuple(members)] = (len({name for name, _ in members}) > 1, conflict)
        found = find_copies(inspections, mirrored=mirrored)
        assert {copies.members: (copies.leak, copies.conflict) for copies in found} == expected
        assert bool(expected) == (not mirrored or len(shape) == 3)
        assert [not copies.leak for copies in found] == sorted(not copies.leak for copies in found)


def test_equal_bytes_in_another_shape_are_no_copy():
    data = np.arange(12, dtype=np.uint8)
    inspections = {
        "a": inspect_arrays(data.reshape(1, 2, 6, 1), [0]),
        "b": inspect_arrays(data.reshape(1, 6, 2, 1), [0]),
    }
    assert find_copies(inspections, mirrored=False) == []


def test_order_is_kept_over_many_blocks_and_progress_counts_all():
    images = np.arange(530, dtype=np.uint16).view(np.uint8).reshape(530, 1, 2, 1)  # [1060] -> [530, 1, 2, 1]
    counted = []
    found = inspect_arrays(images, np.zeros(530, int), progress=counted.append)
    assert sum(counted) == 530
    alone = [inspect_arrays(images[place : place + 1], [0]).digests[0] for place in (0, 31, 32, 512, 529)]
    np.testing.assert_array_equal(found.digests[[0, 31, 32, 512, 529]], alone)


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (1, 6, 2), (2, 3, 3, 3, 1), (1, 1, 1, 1)])
def test_moments_are_those_of_numpy(shape):
    images = GENERATOR.integers(0, 256, shape, np.uint8)
    mean, std = moments(inspect_arrays(images, np.zeros(shape[0], int)).levels[shape[-1]])
    axes = tuple(range(images.ndim - 1))
    np.testing.assert_allclose(mean, (images / 255).mean(axes), rtol=1e-12)
    expected = (images / 255).std(axes)
    np.testing.assert_allclose(std, np.where(expected == 0, 1, expected), rtol=1e-12)


def test_the_numbers_for_a_config_are_those_that_training_measures():
    source = open_source("sklearn", "digits")
    chosen = source.select("train[:30%]", ())
    found = inspect_split(
        source.examples(chosen.split),
        chosen.indices,
        chosen.labels,
        classes=10,
        channels=None,
        transforms=(),
        progress=ignore,
    )
    data = Data(source="sklearn", name="digits", batch_size=8)
    assert moments(found.levels[1]) == normalisation(data, source.load("train[:30%]"))  # to the bit


def test_levels_are_counted_after_the_transforms_and_sizes_before(folder):
    nodes = ({"name": "center_crop", "size": 8},)
    found = inspect_folder(folder, transforms=nodes)
    assert found.levels[3].sum() == 3 * 8 * 8 * found.readable.sum()
    assert (8, 8) not in found.sizes
    plain = inspect_folder(folder)
    np.testing.assert_array_equal(found.digests, plain.digests)


def test_images_of_several_numbers_of_channels_are_told(folder):
    found = inspect_folder(folder, channels=None)
    assert set(found.levels) == {1, 3}
    text = markdown("a folder", list(sections(description({"train": found}))))
    assert "set data.channels" in text


def test_a_transform_that_fails_is_the_images_problem_not_the_end():
    images = GENERATOR.integers(0, 256, (2, 1, 30, 1), np.uint8)
    found = inspect_arrays(images, [0, 1], transforms=({"name": "resize", "size": 200_000},))
    assert [line.split(":")[0] for line in found.corrupt] == ["'a set[0]'", "'a set[1]'"]


def test_one_example_an_empty_class_and_a_label_that_is_none():
    image = np.full((1, 3, 3, 1), 7, np.uint8)
    found = description({"train": inspect_arrays(image, [5])})
    assert found["splits"]["train"]["class_counts"] == [0, 0]
    assert found["findings"] == ["train: no example of 'cat', 'dog'", "train: 1 label outside [0, 2)"]
    one = description({"train": inspect_arrays(image, [1])})
    assert one["splits"]["train"]["empty_classes"] == ["cat"]
    assert one["splits"]["train"]["largest_to_smallest"] == 1
    assert one["splits"]["train"]["sizes"]["median"] == [3, 3]
    full = description({"train": inspect_arrays(np.zeros((5, 1, 1, 1), np.uint8), [0, 1, 1, 1, 0])})
    assert full["findings"] == []
    assert full["splits"]["train"]["largest_to_smallest"] == 1.5


def test_nothing_can_be_read(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "0.png").write_bytes(b"nothing")
    inspections = {"train": inspect_folder(tmp_path)}
    found = description(inspections)
    assert found["findings"] == ["train: 2 of 2 images cannot be read"]
    assert markdown("a folder", list(sections(found)))
    for figure in (class_balance(inspections, ("cat", "dog")), image_sizes(inspections)):
        figure.savefig(tmp_path / "figure.png")


def test_names_from_data_do_not_break_a_table():
    inspections = {"train": inspect_arrays(np.zeros((2, 1, 1, 1), np.uint8), [0, 1])}
    text = markdown("a set", list(sections(description(inspections, ("a|b\nc", "<b>")))))
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| a\\|b c | 1 (50.0 %) |" in table
    assert "<b>" not in text


def test_samples_are_of_each_class_usable_and_the_same_for_a_seed():
    labels = np.array([0, 0, 0, 1, 1, 3, 3, 3, 3])
    usable = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], bool)
    chosen = choose_samples(labels, usable, per_class=2, classes=9, seed=1)
    assert labels[chosen].tolist() == [0, 0, 1, 3, 3]
    assert usable[chosen].all()
    assert len(set(chosen.tolist())) == 5
    assert chosen.tolist() == choose_samples(labels, usable, per_class=2, classes=9, seed=1).tolist()
    assert labels[choose_samples(labels, usable, per_class=1, classes=2, seed=1)].tolist() == [0, 3]
    others = {tuple(choose_samples(labels, usable, per_class=2, classes=9, seed=seed)) for seed in range(9)}
    assert len(others) > 1


def test_streamed_samples_have_the_pixels_of_training_in_each_epoch(folder):
    source = folder_source(str(folder), directory=None, split_seed=0)
    chosen = source.select("validation", ())
    split = StreamedImages(
        examples=source.examples("validation"),
        indices=chosen.indices,
        labels=chosen.labels,
        class_names=source.class_names,
        origin=chosen.origin,
        base=chosen.base,
        training_transforms=({"name": "random_crop", "size": 12}, {"name": "random_flip"}),
        seed=3,
    )
    seen, batches = {}, split.training_batches(seed=3, start=0, batch_size=2)
    for _ in range(len(split)):  # two epochs
        batch = next(batches)
        for image, example, epoch in zip(batch["image"], batch["id"], batch["epoch"]):
            seen[int(example), int(epoch)] = image
    batches.close()
    positions = np.array([4, 0, 3])
    for epoch, batch in enumerate(streamed_batches(split, positions=positions, seed=3, epochs=2)):
        assert batch["id"].tolist() == positions.tolist()
        assert batch["label"].tolist() == split.labels[positions].tolist()
        np.testing.assert_array_equal(batch["image"], [seen[place, epoch] for place in positions.tolist()])
    assert (seen[0, 0] != seen[0, 1]).any()


def test_augmented_samples_are_those_of_a_training_batch():
    images = GENERATOR.integers(0, 256, (8, 6, 6, 1), np.uint8)
    examples, labels = ArrayExamples(images, np.arange(8), "a set"), np.arange(8, dtype=np.int32)
    nodes = ({"name": "random_crop", "padding": 2}, {"name": "random_flip"})
    batches = batches_in_memory(
        examples, np.arange(8), labels, positions=np.array([6, 1]), channels=None, transforms=(), epochs=2
    )
    key = jax.random.key(4)
    shown = list(augmented(key, batches, augmentations=nodes, num_classes=8))
    whole = {"image": images, "label": labels, "mask": np.ones(8, np.float32), "id": np.arange(8, dtype=np.int32)}
    transform = jax.jit(
        lambda batch: training_transform(key, batch, augmentations=nodes, num_classes=8, mean=(0.5,), std=(0.25,))
    )
    for epoch in range(2):
        expected = transform({**whole, "epoch": np.full(8, epoch, np.int32)})["image"]
        np.testing.assert_allclose(shown[epoch], 0.25 * expected[np.array([6, 1])] + 0.5, atol=1e-6)
    assert (np.asarray(shown[0]) != np.asarray(shown[1])).any()


def test_samples_of_unequal_sizes_are_refused_as_training_refuses_them(folder):
    source = folder_source(str(folder), directory=None, split_seed=0)
    chosen = source.select("validation", ())
    batches = batches_in_memory(
        source.examples("validation"),
        chosen.indices,
        chosen.labels,
        positions=np.array([0, 1]),
        channels=3,
        transforms=(),
        epochs=1,
    )
    with pytest.raises(UserError, match=r"1.jpg is 41×50×3, .*0.jpg is 40×50×3; .* add data.transforms"):
        next(batches)


def test_each_sample_is_in_the_row_of_its_class_and_below_its_epoch(tmp_path):
    stored = [np.full((h, w, 1), 10 * (m + 1), np.uint8) for m, (h, w) in enumerate([(64, 64), (32, 64), (64, 64)])]
    after = [np.full((3, 64, 64, 1), epoch) + np.arange(3)[:, None, None, None] / 10 for epoch in (0.25, 0.5)]
    figure = samples(stored, after, [1, 1, 0], ["$a", "b"], title="100 $ of $")
    [axes] = figure.axes
    picture = np.asarray(axes.images[0].get_array())
    rows = {tick.get_text(): place for tick, place in zip(axes.get_yticklabels(), axes.get_yticks())}
    columns = axes.get_xticks()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["stored", "epoch 0", "epoch 1"] * 2
    levels = [
        [10, round(255 * 0.25), round(255 * 0.5)],
        [20, round(255 * 0.35), round(255 * 0.6)],
        [30, round(255 * 0.45), round(255 * 0.7)],
    ]
    for label, expected in (("b", levels[0] + levels[1]), ("$a", levels[2])):
        shown = [picture[int(rows[label]), int(column)].tolist() for column in columns]
        assert shown[: len(expected)] == [[level] * 3 for level in expected]
    figure.savefig(tmp_path / "samples.png")  # a $ is no formula


def test_figures_of_many_classes_sizes_and_ranks(tmp_path):
    labels = np.arange(60) % 45
    flat = {"train": inspect_arrays(GENERATOR.integers(0, 256, (60, 7, 2), np.uint8), labels, classes=50)}
    class_balance(flat, [str(number) for number in range(50)]).savefig(tmp_path / "balance.png")
    image_sizes(flat).savefig(tmp_path / "sizes.png")
    figure = class_balance({"train": inspect_arrays(np.zeros((4, 1, 1, 1), np.uint8), [0, 0, 0, 1])}, ("cat", "dog"))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [75, 25]
