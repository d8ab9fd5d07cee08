"""Streams against the same images in memory: order, pixels, what cannot be read, and where reading begins again."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.ahead import InTurn
from cnn_jax.data.batches import evaluation_batches, training_batch
from cnn_jax.data.host_transforms import transform_image
from cnn_jax.data.sources import Source, open_source
from cnn_jax.data.stream import StreamedImages, open_stream
from cnn_jax.errors import CorruptImageError, UserError

CROPS = ({"name": "random_resized_crop", "size": 6}, {"name": "random_flip"})
COUNT = 46


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory) -> pathlib.Path:
    """Digits as PNG files: `train` with 46 images in ten folders of classes, and `test` with 10."""
    digits = open_source("sklearn", "digits").load("train[:56]")
    root = tmp_path_factory.mktemp("images") / "digits with spaces"
    for index, (image, label) in enumerate(zip(digits.images, digits.labels)):
        folder = root / ("train" if index < COUNT else "test") / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{index:03d}.png")
    return root


def source_of(root: pathlib.Path) -> Source:
    return open_source("folder", root.name, directory=str(root.parent))


def stream_of(root: pathlib.Path, spec: str = "train", **options) -> StreamedImages:
    return open_stream(source_of(root), spec, **{"channels": 1, **options})


def assert_same(one, two):
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
        assert np.asarray(one[name]).dtype == np.asarray(two[name]).dtype, name


@pytest.mark.parametrize("rows", [None, np.array([1, 2, 5])])
def test_a_stream_has_the_batches_of_memory(digits_folder, rows):
    memory = source_of(digits_folder).load("train", channels=1)
    stream = stream_of(digits_folder)
    assert stream.image_shape == memory.image_shape
    ahead = stream.training_batches(seed=3, start=0, batch_size=20, rows=rows)
    for step in range(6):  # more than two epochs
        expected = training_batch(memory, seed=3, step=step, batch_size=20, rows=rows)
        assert_same(next(ahead), expected)
        assert_same(stream.training_batch(seed=3, step=step, batch_size=20, rows=rows), expected)
    ahead.close()
    assert not stream.corrupt


@pytest.mark.parametrize(("batch_size", "multiple_of"), [(16, 1), (10, 4), (100, 8), (1, 1)])
def test_evaluation_has_the_batches_of_memory(digits_folder, batch_size, multiple_of):
    options = {"batch_size": batch_size, "multiple_of": multiple_of}
    memory, stream = source_of(digits_folder).load("train", channels=1), stream_of(digits_folder)
    expected = list(evaluation_batches(memory, **options))
    found = list(stream.evaluation_batches(**options))
    assert len(found) == len(expected)
    for one, two in zip(found, expected):
        real = two["mask"] == 1
        np.testing.assert_array_equal(one["mask"], two["mask"])
        for name in ("image", "label"):  # what padding holds is free
            np.testing.assert_array_equal(one[name][real], two[name][real])
            assert one[name].shape == two[name].shape
    rows = np.array([0])
    for one, whole in zip(stream.evaluation_batches(rows=rows, **options), found):
        assert_same(one, {name: values[rows] for name, values in whole.items()})


def test_random_pixels_of_an_example_depend_on_seed_and_epoch_alone(digits_folder):
    def pixels(batch_size, steps, seed=0):
        stream = stream_of(digits_folder, training_transforms=CROPS, seed=seed)
        found = {}
        for step in range(steps):
            batch = stream.training_batch(seed=1, step=step, batch_size=batch_size)
            for epoch, index, image in zip(batch["epoch"], batch["id"], batch["image"]):
                found[int(epoch), int(index)] = image
        return found

    one, other = pixels(1, 60), pixels(20, 3)
    assert set(one) == set(other)
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    assert any((one[0, index] != one[1, index]).any() for epoch, index in one if epoch == 1)
    assert any((one[key] != image).any() for key, image in pixels(20, 1, seed=1).items())


@pytest.mark.parametrize("start", [1, 2, 3, 4, 7])
def test_a_stream_that_begins_again_goes_on_where_it_was(digits_folder, start):
    stream = stream_of(digits_folder, training_transforms=CROPS)
    ahead = stream.training_batches(seed=0, start=start, batch_size=16)
    for step in (start, start + 1):
        assert_same(next(ahead), stream.training_batch(seed=0, step=step, batch_size=16))
    ahead.close()


@pytest.mark.slow
def test_two_processes_make_the_batches_of_threads_from_every_step(digits_folder):
    stream = stream_of(digits_folder, training_transforms=CROPS, workers=2)
    for start in (0, 3):
        ahead = stream.training_batches(seed=0, start=start, batch_size=16)
        for step in range(start, start + 5):
            assert_same(next(ahead), stream.training_batch(seed=0, step=step, batch_size=16))
        ahead.close()


@pytest.fixture
def damaged(digits_folder, tmp_path) -> tuple[pathlib.Path, list[str]]:
    """The digits with two training images that cannot be read, and their names."""
    root = shutil.copytree(digits_folder, tmp_path / "damaged")
    files = sorted((root / "train").rglob("*.png"))
    files[3].write_bytes(files[3].read_bytes()[:60])
    files[9].write_text("no image")
    return root, [f"{file.parent.name}/{file.name}" for file in (files[3], files[9])]


def test_an_image_that_cannot_be_read_is_an_error_that_names_it(damaged):
    root, names = damaged
    stream = stream_of(root)
    with pytest.raises(CorruptImageError) as error:
        for _ in zip(range(3), stream.training_batches(seed=0, start=0, batch_size=16)):
            pass
    assert any(name in str(error.value) for name in names)
    assert 'data.on_corrupt="skip"' in str(error.value)
    assert "\n" not in str(error.value)


def test_skipped_images_are_masked_and_counted_once(damaged):
    root, names = damaged
    stream = stream_of(root, on_corrupt="skip", max_corrupt=2)
    masked = [
        index
        for step in range(6)
        for batch in [stream.training_batch(seed=0, step=step, batch_size=16)]
        for index, mask in zip(batch["id"], batch["mask"])
        if not mask
    ]
    assert sorted(set(masked)) == [3, 9]
    assert len(masked) >= 4  # in both epochs
    assert len(stream.corrupt) == 2
    for name in names:
        assert sum(name in line for line in stream.corrupt) == 1
    (batch,) = stream.evaluation_batches(batch_size=COUNT)
    assert batch["mask"].sum() == COUNT - 2
    # What stands in for them is an image of the batch, not black: BatchNorm sees it.
    np.testing.assert_array_equal(batch["image"][3], batch["image"][0])


def test_more_than_the_cap_is_an_error(damaged):
    stream = stream_of(damaged[0], on_corrupt="skip", max_corrupt=1)
    with pytest.raises(CorruptImageError, match=r"2 images cannot be read, data\.max_corrupt is 1"):
        list(stream.evaluation_batches(batch_size=8))


def test_without_one_image_that_can_be_read_there_is_no_shape(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        (tmp_path / "set" / "train" / name / "0.png").write_text("no image")
    stream = stream_of(tmp_path / "set", on_corrupt="skip", max_corrupt=5)
    with pytest.raises(UserError, match="none of the 2 images can be read"):
        _ = stream.image_shape


def test_images_of_different_sizes_need_a_resize(digits_folder, tmp_path):
    root = shutil.copytree(digits_folder, tmp_path / "sizes")
    Image.new("L", (9, 7)).save(next((root / "train").rglob("*.png")))
    with pytest.raises(UserError, match=r"is 7×9×1, others are 8×8×1; give data\.transforms a resize"):
        list(stream_of(root).evaluation_batches(batch_size=COUNT))
    transforms = ({"name": "resize", "size": (8, 8)},)
    assert len(list(stream_of(root, evaluation_transforms=transforms).evaluation_batches(batch_size=COUNT))) == 1


def test_transforms_are_those_of_the_table(digits_folder):
    memory = source_of(digits_folder).load("train", channels=1)
    nodes = ({"name": "resize", "size": 5},)
    stream = stream_of(digits_folder, evaluation_transforms=nodes, training_transforms=CROPS[:1])
    assert stream.image_shape == (6, 6, 1)
    np.testing.assert_array_equal(
        stream.read(np.array([4]))[0], transform_image(memory.images[4], nodes, generator=None)
    )


def test_the_digest_tells_content_selection_and_labels_apart(digits_folder, tmp_path):
    digests = {stream_of(digits_folder).sha256(), stream_of(digits_folder, "train[:45]").sha256()}
    root = shutil.copytree(digits_folder, tmp_path / digits_folder.name)
    assert stream_of(root).sha256() in digests  # where the files are is no matter
    file = next((root / "train").rglob("*.png"))
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    digests.add(stream_of(root).sha256())
    labels = np.zeros(COUNT, np.int32)
    digests.add(dataclasses.replace(stream_of(digits_folder), labels=labels).sha256())
    assert len(digests) == 4
    description = stream_of(digits_folder).description()
    assert description["examples"] == COUNT
    assert description["digest_of"] == "contents"


def test_what_is_made_in_turn_begins_anew_only_elsewhere():
    begun, closed = [], []

    def begin(number):
        begun.append(number)
        try:
            while True:
                yield number
                number += 1
        finally:
            closed.append(number)

    elements = InTurn(begin)
    assert [elements(number) for number in (2, 3, 4, 2, 9)] == [2, 3, 4, 2, 9]
    assert begun == [2, 2, 9]
    elements.close()
    elements.close()
    assert len(closed) == 3
