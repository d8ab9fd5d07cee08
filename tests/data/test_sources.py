"""Sources: real data, exact slices, and errors that name what is wrong."""

import gzip
import importlib.util

import numpy as np
import pytest

from cnn_jax.data import digits as digits_of_scikit_learn
from cnn_jax.data.sources import LabelledImages, check_labels, open_source
from cnn_jax.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return open_source("sklearn", "digits")


def test_digits_are_the_1797_images_of_scikit_learn_in_a_fixed_80_20_split(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train, test = digits.load("train"), digits.load("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (8, 8, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    # Every image is there once: compare as multisets of (pixels, label).
    images = np.concatenate([train.images, test.images])[..., 0]
    labels = np.concatenate([train.labels, test.labels])
    expected = sorted(
        (np.round(i * 255 / 16).astype(np.uint8).tobytes(), y) for i, y in zip(bunch.images, bunch.target)
    )
    assert sorted((i.tobytes(), y) for i, y in zip(images, labels)) == expected


def test_where_scikit_learn_keeps_its_digits_elsewhere_its_own_reader_gives_the_same(digits, monkeypatch, tmp_path):
    expected = digits.load("test").sha256()
    monkeypatch.setattr(digits_of_scikit_learn.importlib.util, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets" / "data").mkdir(parents=True)
    # A user's own file is not the package's.
    (tmp_path / "datasets" / "data" / "digits.csv.gz").write_bytes(gzip.compress(b"1,2"))
    digits_of_scikit_learn._read.cache_clear()
    assert digits_of_scikit_learn._from_file() is None
    assert open_source("sklearn", "digits").load("test").sha256() == expected
    digits_of_scikit_learn._read.cache_clear()


def test_the_split_depends_on_its_seed_alone():
    same, other = open_source("sklearn", "digits"), open_source("sklearn", "digits", split_seed=1)
    reference = open_source("sklearn", "digits").load("test").sha256()
    assert same.load("test").sha256() == reference
    assert other.load("test").sha256() != reference


@pytest.mark.parametrize(
    ("spec", "start", "stop"),
    [
        ("train", 0, 1437),
        ("train[:10]", 0, 10),
        ("train[10:]", 10, 1437),
        ("train[:90%]", 0, 1293),
        ("train[90%:]", 1293, 1437),
        ("train[5:99999]", 5, 1437),
        ("test[1:2]", 1, 2),
    ],
)
def test_slices_are_exact(digits, spec, start, stop):
    whole, part = digits.load(spec.partition("[")[0]), digits.load(spec)
    np.testing.assert_array_equal(part.images, whole.images[start:stop])
    np.testing.assert_array_equal(part.labels, whole.labels[start:stop])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("train[3:3]", "empty"),
        ("train[2000:]", "empty"),
        ("trian", "did you mean 'train'"),
        ("train[1:2:3]", "not understood"),
        ("train[-5:]", "not understood"),
        ("", "not understood"),
    ],
)
def test_bad_splits_are_named(digits, spec, message):
    with pytest.raises(UserError, match=message):
        digits.load(spec)


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_a_label_outside_the_classes_is_refused_with_its_index(label):
    data = LabelledImages(
        np.zeros((3, 2, 2, 1), np.uint8),
        np.array([0, label, 1], np.int32),
        ("a",) * 10,
        "here/train",
        ("train", np.arange(3)),
    )
    with pytest.raises(UserError, match=rf"here/train: example 1 has label {label}, outside \[0, 10\)"):
        check_labels(data, 10)
    check_labels(LabelledImages(data.images, np.array([0, 9, 1], np.int32), data.class_names, "x", data.base), 10)


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("sklearn", "digit", "did you mean 'digits'"),
        ("tfd", "mnist", "did you mean 'tfds'"),
        ("tfds", "cifar1", "did you mean 'cifar10'"),
    ],
)
def test_unknown_names_suggest_the_nearest(source, name, message):
    with pytest.raises(UserError, match=message) as caught:
        open_source(source, name)
    assert "\n" not in str(caught.value)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist; create it"):
        open_source("tfds", "mnist", directory=str(tmp_path / "nowhere"))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="with TensorFlow the set is downloaded")
def test_an_unprepared_set_says_which_command_prepares_it(tmp_path):
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '\.\[prepare\]'") as caught:
        open_source("tfds", "mnist", directory=str(tmp_path))
    assert "\n" not in str(caught.value)


def _raw(raw_data, name):
    spec = importlib.util.spec_from_file_location("raw_loaders", raw_data / "loaders.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cifar10() if name == "cifar10" else module.mnist(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"), [("mnist", (28, 28, 1)), ("fashion_mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))]
)
def test_tfds_sets_have_the_pixels_and_labels_of_the_raw_files(raw_data, tfds_directory, name, shape):
    source = open_source("tfds", name, directory=str(tfds_directory))
    data = source.load("test[:500]")
    assert data.images.shape == (500, *shape)
    assert len(data.class_names) == 10
    images, labels = _raw(raw_data, name)["test"]
    # TFDS shuffles the order: compare as multisets of (pixels, label).
    known = {(i.tobytes(), int(y)) for i, y in zip(images, labels)}
    assert all((i.tobytes(), int(y)) in known for i, y in zip(data.images, data.labels))
    assert source.sizes["train"] == {"mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000}[name]


@pytest.mark.slow
def test_the_environment_variable_names_the_directory(tfds_directory, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_directory))
    assert open_source("tfds", "mnist").load("train[:3]").images.shape == (3, 28, 28, 1)
