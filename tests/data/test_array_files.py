"""NumPy files as data sets: their splits, and files that lie about what they hold."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from cnn_jax.data.sources import check_disjoint, open_source
from cnn_jax.errors import UserError


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.round(bunch.images[:200] * 15.9375).astype(np.uint8), bunch.target[:200]


def opened(path, **options):
    return open_source("arrays", str(path), **options)


@pytest.mark.parametrize("store", ["archive", "compressed", "folder"])
@pytest.mark.parametrize("names", [("{}_images", "{}_labels"), ("x_{}", "y_{}")])
def test_splits_are_the_arrays_of_their_names(tmp_path, digits, store, names):
    images, labels = digits
    arrays = {}
    for split, rows in {"train": slice(0, 120), "val": slice(120, 150), "test": slice(150, 200)}.items():
        arrays |= {names[0].format(split): images[rows], names[1].format(split): labels[rows]}
    path = tmp_path / "digits.npz"
    if store == "folder":
        path = tmp_path
        for name, values in arrays.items():
            np.save(tmp_path / f"{name}.npy", values)
    else:
        {"archive": np.savez, "compressed": np.savez_compressed}[store](path, **arrays)
    source = opened(path)
    assert source.sizes == {"train": 120, "validation": 30, "test": 50}
    assert source.class_names == tuple("0123456789")
    data = source.load("validation[10:]")
    np.testing.assert_array_equal(data.images, images[130:150, ..., None])
    np.testing.assert_array_equal(data.labels, labels[130:150])
    examples = pickle.loads(pickle.dumps(source.examples("test")))
    np.testing.assert_array_equal(examples[7].image, images[157, ..., None])
    assert examples[7].label == labels[157]
    assert examples.labels().tolist() == labels[150:].tolist()
    assert len(pickle.dumps(source.examples("train"))) < 4000  # paths and labels, no images
    assert examples.description()["sha256"] == source.load("test").sha256()


def test_one_set_is_divided_by_chance_and_class(tmp_path, digits):
    images, labels = digits
    np.savez(tmp_path / "a.npz", images=images, labels=labels[:, None], class_names=np.array(list("abcdefghij")))
    source = opened(tmp_path / "a.npz")
    assert list(source.sizes) == ["train", "validation", "test"]
    assert sum(source.sizes.values()) == 200
    assert source.class_names == tuple("abcdefghij")
    parts = {split: source.load(split) for split in source.sizes}
    check_disjoint(parts)
    known = {image.tobytes(): label for image, label in zip(images, labels.tolist())}
    for part in parts.values():
        assert [known[image.tobytes()] for image in part.images] == part.labels.tolist()
    counts = np.bincount(parts["train"].labels)
    np.testing.assert_allclose(counts, np.bincount(labels) * 0.8, atol=0.51)
    assert opened(tmp_path / "a.npz").load("test").sha256() == parts["test"].sha256()
    assert opened(tmp_path / "a.npz", split_seed=1).load("test").sha256() != parts["test"].sha256()


def test_channels_are_converted(tmp_path, digits):
    images, labels = digits
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels)
    data = opened(tmp_path / "a.npz").load("train", channels=3, transforms=[{"name": "resize", "size": 4}])
    assert data.images.shape == (200, 4, 4, 3)
    assert (data.images == data.images[..., :1]).all()


GOOD = np.zeros((4, 2, 2, 3), np.uint8)
LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": GOOD / 255, "train_labels": LABELS}, "train_images has type float64; images must be uint8"),
        ({"train_images": GOOD[:, 0, 0], "train_labels": LABELS}, r"train_images has shape \(4, 3\)"),
        ({"train_images": GOOD[:3], "train_labels": LABELS}, "has 3 images, train_labels has 4 labels"),
        ({"train_images": GOOD, "train_labels": LABELS / 2}, "train_labels has type float64; labels must be whole"),
        ({"train_images": GOOD, "train_labels": np.eye(4, dtype=int)}, r"train_labels has shape \(4, 4\)"),
        ({"train_images": GOOD, "train_labels": LABELS - 1}, "label -1 at row 0, and labels from -1 to 0; classes"),
        ({"train_images": GOOD, "train_labels": LABELS + 2**31}, "labels from 2147483648"),
        ({"train_images": GOOD, "train_labels": LABELS + 2**20}, "1,048,576 are the most"),
        ({"train_images": GOOD}, "has train_images but no train_labels"),
        ({"pictures": GOOD}, "has the arrays pictures; it needs train_images, train_labels and so on, or images"),
        ({"images": GOOD, "labels": LABELS, "class_names": np.array(["a"])}, "has 1 names, labels go up to 1"),
        ({"images": GOOD, "labels": LABELS, "class_names": np.arange(2)}, "it must be text"),
        (
            {
                f"{split}_{kind}": {"images": GOOD, "labels": LABELS}[kind]
                for split in ("val", "validation")
                for kind in ("images", "labels")
            },
            "both the split 'validation'",
        ),
        ({"images": np.array([1, "a", None], object), "labels": LABELS}, "holds Python objects"),
    ],
)
def test_arrays_that_are_no_data_set_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def npy(header, content=b""):
    """An .npy file with any header."""
    text = header.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


LIES = {
    "more than there is": npy(
        "{'descr': '|u1', 'fortran_order': False, 'shape': (10**3, 2, 2), }".replace("10**3", "1000"), bytes(16)
    ),
    "a huge array": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999, 28, 28), }", bytes(16)),
    "negative sizes": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -16), }", bytes(16)),
    "less than there is": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2), }", bytes(16)),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", bytes(16)),
    "code": npy("{'descr': '|u1', 'fortran_order': False, 'shape': __import__('os').abort(), }"),
    "no header": b"\x93NUMPY\x01\x00",
    "no array": b"text",
    "nothing": b"",
}


@pytest.mark.parametrize("store", ["archive", "folder"])
@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(tmp_path, lie, store, recwarn):
    good = io.BytesIO()
    np.save(good, LABELS)
    files = {"images.npy": LIES[lie], "labels.npy": good.getvalue()}
    path = tmp_path / "a.npz" if store == "archive" else tmp_path
    if store == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged|holds Python objects") as caught:
        opened(path)
    assert "images" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not recwarn.list


def test_damaged_archives(tmp_path, digits):
    file = io.BytesIO()
    np.savez_compressed(file, images=digits[0], labels=digits[1])
    content = file.getvalue()
    path = tmp_path / "a.npz"
    for length in range(0, len(content), len(content) // 25):
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            opened(path)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[generator.integers(len(content), size=4)] ^= 85
        path.write_bytes(damaged.tobytes())
        try:
            opened(path).load("train")
        except UserError:
            refused += 1
    assert refused > 50


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.npz' does not exist; give an .npz file or a folder of .npy files"):
        opened(tmp_path / "a.npz")
    with pytest.raises(UserError, match="has the arrays none"):
        opened(tmp_path)
