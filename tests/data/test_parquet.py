"""Parquet files as Hugging Face writes them: shards, row groups, names of classes, and files that are wrong."""

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cnn_jax.data.sources import check_labels, open_source
from cnn_jax.errors import CorruptImageError, UserError


def png(value, size=(4, 5)):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(path, values, labels, *, image="image", label="label", form="struct", features=None, group=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = [png(value) if isinstance(value, int) else value for value in values]
    if form == "struct":
        rows = [{"bytes": content, "path": f"{number}.png"} for number, content in enumerate(contents)]
        column = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    else:
        column = pa.array(contents, pa.binary())
    table = pa.table({image: column, "extra": pa.array(range(len(labels))), label: pa.array(labels)})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)


FEATURES = {
    "img": {"_type": "Image"},
    "extra": {"_type": "Value", "dtype": "int64"},
    "fine": {"_type": "ClassLabel", "names": ["ant", "bee", "cow"]},
}


@pytest.fixture
def shards(tmp_path):
    """A training split of two files and 17 rows, and a test split of one."""
    options = {"image": "img", "label": "fine", "features": FEATURES}
    write(tmp_path / "data" / "train-00000-of-00002.parquet", range(10), [i % 3 for i in range(10)], **options)
    write(tmp_path / "data" / "train-00001-of-00002.parquet", range(10, 17), [2] * 7, **options)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [200, 201], [1, 0], **options)
    return tmp_path


def opened(root):
    return open_source("parquet", str(root))


def test_every_row_of_every_shard(shards):
    source = opened(shards)
    assert source.sizes == {"train": 17, "test": 2}
    assert source.class_names == ("ant", "bee", "cow")
    data = source.load("train")
    assert data.images.shape == (17, 4, 5, 3)
    assert data.images[:, 0, 0, 0].tolist() == list(range(17))
    assert data.labels.tolist() == [i % 3 for i in range(10)] + [2] * 7
    np.testing.assert_array_equal(source.load("train[8:12]").images, data.images[8:12])


def test_random_access_in_any_order_and_after_pickling(shards):
    examples = opened(shards).examples("train")
    for index in np.random.default_rng(0).permutation(17).tolist():
        assert examples[index].image == png(index)
    again = pickle.loads(pickle.dumps(examples))
    assert len(pickle.dumps(examples)) < 3000
    assert again[16] == examples[16]
    assert again[16].name.endswith("/train[16] (6.png)")
    assert again.labels().tolist() == examples.labels().tolist()
    assert again.description() == examples.description()
    assert again.description()["digest_of"] == "contents"


@pytest.mark.parametrize("form", ["struct", "bytes"])
@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([3, 0, 1], ("0", "1", "2", "3"), [3, 0, 1]),
        (["dog", "ant", "dog"], ("ant", "dog"), [1, 0, 1]),
        (pa.array(["dog", "ant", "dog"]).dictionary_encode(), ("ant", "dog"), [1, 0, 1]),
    ],
)
def test_labels_without_metadata(tmp_path, labels, names, numbers, form):
    write(tmp_path / "train.parquet", [1, 2, 3], labels, form=form)
    source = opened(tmp_path)
    assert source.class_names == names
    assert source.load("train").labels.tolist() == numbers


def test_images_that_cannot_be_read_are_skipped_and_listed(tmp_path):
    write(tmp_path / "train.parquet", [1, b"text", None, 4], [0, 1, 0, 1])
    source = opened(tmp_path)
    with pytest.raises(CorruptImageError, match=r"train\[1\] \(1\.png\)' is no image"):
        source.load("train")
    data = source.load("train", on_corrupt="skip")
    assert data.images[:, 0, 0, 0].tolist() == [1, 4]
    assert data.base[1].tolist() == [0, 3]
    assert ["has no bytes" in line for line in data.corrupt] == [False, True]


def test_shards_that_are_missing_or_twice_there(shards):
    path = shards / "data" / "train-00001-of-00002.parquet"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match="file 1 of the 2 of the split 'train' is missing"):
        opened(shards)
    path.write_bytes(content)
    (shards / "data" / "train.parquet").write_bytes(content)
    with pytest.raises(UserError, match="are two sets of one split"):
        opened(shards)


def test_files_that_are_damaged(shards):
    path = shards / "data" / "train-00000-of-00002.parquet"
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:-10], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"train-00000-of-00002\.parquet' is no parquet file or damaged") as caught:
            opened(shards)
        assert "\n" not in str(caught.value)
    path.write_bytes(content)
    source = opened(shards)
    # Damaged after it was opened: the pages of the first row group.
    path.write_bytes(content[:4] + bytes(len(content) // 3) + content[4 + len(content) // 3 :])
    with pytest.raises(UserError, match=r"damaged|no image|no bytes"):
        source.load("train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, None, 1]}, "column 'label' has 1 rows without a label"),
        ({"labels": [0.0, 1.0, 2.0]}, "column 'label' is double; labels are whole numbers or text"),
        ({"labels": [0, -2, 1]}, r"row 1 has label -2, outside \[0, 2\)"),
        ({"labels": [0, 1, 2], "image": "photo"}, "columns photo, extra, label; one must be called image or img"),
        ({"labels": [0, 1, 2], "label": "kind"}, "one must be called label or labels or fine_label"),
    ],
)
def test_columns_that_do_not_suit_are_named(tmp_path, arguments, message):
    write(tmp_path / "train.parquet", [1, 2, 3], **arguments)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_a_split_without_labels_hinders_nobody_who_does_not_use_it(tmp_path):
    write(tmp_path / "train.parquet", [1, 2, 3], [0, 1, 1])
    write(tmp_path / "test.parquet", [1, 2], [-1, -1])
    source = opened(tmp_path)
    assert source.class_names == ("0", "1")
    check_labels(source.load("train"), 2)
    with pytest.raises(UserError, match=r"example 0 has label -1, outside \[0, 2\)"):
        check_labels(source.load("test"), 2)
    with pytest.raises(UserError, match=r"example \d+ has label -1, no class; wrappers need the labels; mend"):
        source.load("test", wrappers=({"name": "class_subset", "per_class": 1, "seed": 0},))


def test_classes_of_the_test_split_must_be_those_of_training(tmp_path):
    write(tmp_path / "train.parquet", [1, 2], ["a", "b"])
    write(tmp_path / "test.parquet", [1, 2], ["a", "c"])
    with pytest.raises(UserError, match="split 'test': label 'c' is no class of the training split"):
        opened(tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; give the folder that holds \.parquet files"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no \.parquet files"):
        opened(tmp_path)
    pq.write_table(pa.table({"image": ["not a file"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="column 'image' is string; images are encoded files"):
        opened(tmp_path)
    (tmp_path / "123.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="names no split"):
        opened(tmp_path)
