"""Folders of image files: their splits, what is left out, and what is named when it is wrong."""

import io
import os
import pathlib
import pickle
import tempfile

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.examples import Examples
from cnn_jax.data.sources import check_disjoint, open_source
from cnn_jax.errors import CorruptImageError, UserError


def write(path, *, value=0, size=(6, 5), kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), value, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    path.write_bytes(file.getvalue())


def fill(root, classes=("cat", "dog"), count=20, suffix="png"):
    for number, name in enumerate(classes):
        for index in range(count):
            write(root / name / f"{index:03}.{suffix}", value=100 * number + index)
    return root


def opened(root, **options):
    return open_source("folder", str(root), **options)


def names(source, split):
    examples = source.examples(split)
    return [
        os.path.relpath(examples[i].name, start=os.path.dirname(examples[0].name) + "/..") for i in range(len(examples))
    ]


def test_a_folder_of_classes_is_divided_by_chance_and_class(tmp_path):
    source = opened(fill(tmp_path))
    assert source.sizes == {"train": 32, "validation": 4, "test": 4}
    assert source.class_names == ("cat", "dog")
    loaded = {split: source.load(split) for split in source.sizes}
    check_disjoint(loaded)
    seen = np.sort(np.concatenate([data.images[:, 0, 0, 0] for data in loaded.values()]))
    np.testing.assert_array_equal(seen, [*range(20), *range(100, 120)])
    for data in loaded.values():
        assert np.bincount(data.labels).tolist() == [len(data) // 2] * 2
        np.testing.assert_array_equal(data.labels, data.images[:, 0, 0, 0] // 100)
    assert loaded["train"].images.shape == (32, 6, 5, 3)


def test_the_division_depends_on_the_seed_and_on_the_names_alone(tmp_path):
    one = opened(fill(tmp_path / "a"))
    same = opened(fill(tmp_path / "b" / "c"))
    other = opened(tmp_path / "a", split_seed=1)
    assert names(one, "test") == names(same, "test") != names(other, "test")
    assert one.examples("train").description() == same.examples("train").description()


def test_folders_of_splits(tmp_path):
    fill(tmp_path / "train", count=3)
    fill(tmp_path / "val", count=2)
    fill(tmp_path / "test", classes=("dog",), count=1)
    source = opened(tmp_path)
    assert source.sizes == {"train": 6, "validation": 4, "test": 1}
    assert source.load("test").labels.tolist() == [1]
    assert names(source, "train")[:2] == ["cat/000.png", "cat/001.png"]
    write(tmp_path / "test" / "fox" / "1.png")
    with pytest.raises(UserError, match=r"test/fox' is a class that .*train' does not have"):
        opened(tmp_path)


def test_files_that_list_the_splits(tmp_path):
    fill(tmp_path, count=4)
    (tmp_path / "train.txt").write_text("dog/001.png\ncat/000.png\n\n")
    (tmp_path / "validation.txt").write_text("dog/000.png\n")
    source = opened(tmp_path)
    assert source.sizes == {"train": 2, "validation": 1}
    assert names(source, "train") == ["dog/001.png", "cat/000.png"]
    assert source.examples("train").labels().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat/9.png\n", r"train.txt', line 1: there is no file 'cat/9.png'"),
        ("cat/000.png\ncat/000.png", "line 2: 'cat/000.png' is listed twice"),
        ("fox/000.png", "is no path such as 'cat/image.jpg'"),
        ("../cat/000.png", "is no path such as"),
        ("/etc/passwd", "is no path such as"),
        ("", "lists no files"),
    ],
)
def test_lists_that_are_wrong_are_named_with_the_line(tmp_path, text, message):
    fill(tmp_path, count=1)
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_hidden_files_other_files_and_links(tmp_path):
    fill(tmp_path / "data", count=10)
    elsewhere = tmp_path / "elsewhere.png"
    write(elsewhere, value=77)
    for name in (".hidden.png", "._000.png", "Thumbs.db", "labels.csv"):
        (tmp_path / "data" / "cat" / name).write_bytes(b"no image")
    (tmp_path / "data" / ".cache").mkdir()
    (tmp_path / "data" / "cat" / "folder.png").mkdir()
    (tmp_path / "data" / "readme.txt").write_text("text")
    (tmp_path / "data" / "cat" / "link.PNG").symlink_to(elsewhere)
    (tmp_path / "data" / "fox").symlink_to(tmp_path / "data" / "dog")
    source = opened(tmp_path / "data")
    assert source.class_names == ("cat", "dog", "fox")
    assert sum(source.sizes.values()) == 11 + 10 + 10
    values = np.concatenate([source.load(split).images[:, 0, 0, 0] for split in source.sizes])
    assert (values == 77).sum() == 1


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere' does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no folders; it needs one for each class"):
        opened(tmp_path)
    fill(tmp_path)
    (tmp_path / "fox").mkdir()
    with pytest.raises(UserError, match=r"class folder '.*fox' has no images \(.jpg, .jpeg, .png, .webp\)"):
        opened(tmp_path)
    (tmp_path / "fox").rmdir()
    source = open_source("folder", tmp_path.name, directory=str(tmp_path.parent))
    with pytest.raises(UserError, match="did you mean 'train'"):
        source.examples("trian")


def test_examples_can_be_pickled_and_hold_no_images(tmp_path):
    examples = opened(fill(tmp_path)).examples("train")
    assert isinstance(examples, Examples)
    stored = pickle.dumps(examples)
    assert len(stored) < 5000
    again = pickle.loads(stored)
    assert len(again) == len(examples) == 32
    for index in range(3):
        assert again[index] == examples[index]
        assert isinstance(again[index].image, bytes)
    np.testing.assert_array_equal(again.labels(), [example.label for example in map(again.__getitem__, range(32))])


def test_the_description_follows_the_contents(tmp_path, monkeypatch):
    from cnn_jax.data import folder as module

    fill(tmp_path)
    before = opened(tmp_path).examples("train").description()
    assert before["digest_of"] == "contents"
    path = tmp_path / "cat" / os.path.basename(opened(tmp_path).examples("train")[0].name)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    assert opened(tmp_path).examples("train").description()["sha256"] != before["sha256"]
    monkeypatch.setattr(module, "LARGEST_HASHED", 10)
    by_size = opened(tmp_path).examples("train").description()
    path.write_bytes(content)
    assert by_size == opened(tmp_path).examples("train").description()
    assert by_size["digest_of"] == "names and sizes"


def test_images_of_several_sizes_need_transforms(tmp_path):
    fill(tmp_path)
    write(tmp_path / "cat" / "000.png", size=(9, 7))
    write(tmp_path / "dog" / "000.png", size=(12, 30))
    source = opened(tmp_path)
    with pytest.raises(UserError, match=r"is \d+×\d+×3, .* is \d+×\d+×3; only equal-sized images can be held"):
        [source.load(split) for split in source.sizes]
    nodes = [{"name": "resize", "size": 8}, {"name": "center_crop", "size": 8}]
    data = source.load("train", transforms=nodes, channels=1)
    assert data.images.shape == (32, 8, 8, 1)
    with pytest.raises(UserError, match="'random_flip' is random"):
        source.load("train", transforms=[{"name": "random_flip"}])


@pytest.fixture
def damaged(tmp_path):
    """Forty good files, a cut one, a text, a broken link, and a PNG that is called .jpg."""
    fill(tmp_path, count=20)
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(file, "JPEG")
    (tmp_path / "cat" / "cut.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    (tmp_path / "cat" / "text.jpg").write_text("no image")
    (tmp_path / "dog" / "broken.jpg").symlink_to(tmp_path / "missing.jpg")
    write(tmp_path / "dog" / "png.jpg", value=255)
    every = [f"{path.parent.name}/{path.name}\n" for path in sorted(tmp_path.glob("*/*"))]
    (tmp_path / "train.txt").write_text("".join(every))
    return opened(tmp_path)


def test_a_corrupt_image_is_an_error_that_names_it(damaged):
    with pytest.raises(CorruptImageError, match=r"cat/cut\.jpg' cannot be read: image file is truncated"):
        damaged.load("train")
    examples = damaged.examples("train")
    index = next(i for i, name in enumerate(names_of(examples)) if name.endswith("broken.jpg"))
    with pytest.raises(CorruptImageError, match=r"dog/broken\.jpg' cannot be read: No such file"):
        examples[index]


def names_of(examples):
    return [path for path, _ in examples._listing]


def test_corrupt_images_are_skipped_and_listed(damaged):
    data = damaged.load("train", on_corrupt="skip")
    assert len(damaged.examples("train")) == 44
    assert len(data) == len(data.images) == len(data.base[1]) == 41
    assert [line.split("'")[1].rsplit("/", 1)[1] for line in data.corrupt] == ["cut.jpg", "text.jpg", "broken.jpg"]
    assert data.images[-1, 0, 0].tolist() == [255] * 3  # the PNG that is called .jpg
    np.testing.assert_array_equal(data.labels, [0] * 20 + [1] * 21)
    listed = names_of(damaged.examples("train"))
    assert not [listed[i] for i in data.base[1] if listed[i].endswith(("cut.jpg", "text.jpg", "broken.jpg"))]
    assert len(damaged.load("train", on_corrupt="skip", max_corrupt=3)) == 41
    with pytest.raises(UserError, match=r"more than 2 images cannot be read; the last: .*broken\.jpg"):
        damaged.load("train", on_corrupt="skip", max_corrupt=2)


def test_nothing_readable_is_an_error(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_text("text")
    with pytest.raises(UserError, match="none of the 2 images can be read"):
        opened(tmp_path).load("train", on_corrupt="skip")


@pytest.fixture
def as_nobody():
    """A folder of an ordinary user, and this process as that user: root may read everything."""
    nobody = 65534
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, nobody, nobody)
            os.seteuid(nobody)
            try:
                yield pathlib.Path(name)
            finally:
                os.seteuid(0)
        else:
            yield pathlib.Path(name)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has other permissions")
def test_files_and_folders_that_may_not_be_read(as_nobody):
    fill(as_nobody, count=2)
    path = as_nobody / "cat" / "000.png"
    path.chmod(0)
    try:
        source = opened(as_nobody)
        with pytest.raises(CorruptImageError, match=r"000\.png' cannot be read: Permission denied"):
            source.load("train")
        assert len(source.load("train", on_corrupt="skip", max_corrupt=1)) == 3
        (as_nobody / "dog").chmod(0)
        with pytest.raises(UserError, match=r"dog' cannot be read: Permission denied"):
            opened(as_nobody)
    finally:
        path.chmod(0o600)
        (as_nobody / "dog").chmod(0o700)


def test_a_file_in_two_lists_is_refused(tmp_path):
    fill(tmp_path, count=3)
    (tmp_path / "train.txt").write_text("cat/000.png\ndog/001.png\n", encoding="utf-8-sig")
    (tmp_path / "test.txt").write_text("cat/002.png\ndog/001.png\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"'dog/001\.png' is listed for train and for test"):
        opened(tmp_path)


def test_links_in_a_circle_pipes_and_odd_names(tmp_path):
    fill(tmp_path, count=3)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "cat" / "zero.png")
    odd = os.fsdecode(b"caf\xe9.png")
    os.replace(tmp_path / "cat" / "000.png", tmp_path / "cat" / odd)
    source = opened(tmp_path)
    assert sum(source.sizes.values()) == 6
    assert odd in {os.path.basename(path) for split in source.sizes for path in names_of(source.examples(split))}
    os.symlink("circle.png", tmp_path / "cat" / "circle.png")
    with pytest.raises(UserError, match=r"circle\.png' cannot be read"):
        opened(tmp_path)
    os.unlink(tmp_path / "cat" / "circle.png")
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(UserError, match="rename it: classes have printable names"):
        opened(tmp_path)


def test_an_image_too_thin_to_resize_is_named_and_can_be_skipped(tmp_path):
    fill(tmp_path)
    source = opened(tmp_path)
    thin = source.examples("train")[3].name
    Image.new("L", (1_000_000, 1)).save(thin)
    resize = ({"name": "resize", "size": 300},)
    with pytest.raises(CorruptImageError, match="pixels would become") as error:
        source.load("train", transforms=resize)
    assert os.path.basename(thin) in str(error.value)
    loaded = source.load("train", transforms=resize, on_corrupt="skip")
    assert len(loaded) == 31
    assert len(loaded.corrupt) == 1
