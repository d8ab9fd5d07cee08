"""Decoded images are kept while nothing changes, and made anew where they are damaged, changed or not wanted."""

import os

import numpy as np
import pytest

from cnn_jax.data import decoded as module
from cnn_jax.data.decoded import FOLDER, decoded


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "data set"
    folder.mkdir()
    (folder / "part.array_record").write_bytes(b"encoded")
    return folder


@pytest.fixture
def kept(tmp_path, monkeypatch):
    folder = tmp_path / "kept images"
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


class Decoder:
    """Counts how often it decodes; each time another image."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return np.full((3, 4, 4, 1), self.calls, np.uint8), np.arange(3)


def test_the_second_time_nothing_is_decoded(source, kept):
    decoder = Decoder()
    first, second = (decoded(("set", "train", 0, 3), source, decoder) for _ in range(2))
    assert decoder.calls == 1
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    assert len(list(kept.iterdir())) == 1  # nothing unfinished is left


@pytest.mark.parametrize("change", ["split", "content", "time", "new file"])
def test_other_data_are_decoded(source, kept, change):
    decoder = Decoder()
    decoded(("set", "train", 0, 3), source, decoder)
    file = source / "part.array_record"
    if change == "content":
        file.write_bytes(b"encoded otherwise")
    if change == "time":
        os.utime(file, ns=(0, 0))
    if change == "new file":
        (source / "part2.array_record").touch()
    images, _ = decoded(("set", "test" if change == "split" else "train", 0, 3), source, decoder)
    assert decoder.calls == 2
    assert images[0, 0, 0, 0] == 2


@pytest.mark.parametrize("damage", ["a flipped bit", "cut", "empty", "a pickle"])
def test_a_damaged_file_is_made_anew(source, kept, damage):
    decoder = Decoder()
    decoded(("set",), source, decoder)
    [file] = kept.iterdir()
    content = bytearray(file.read_bytes())
    content[content.index(bytes([1] * 16))] ^= 1
    objects = kept / "objects.npz"
    np.savez(objects, images=np.array([{}], object), labels=np.arange(1))
    damaged = {"a flipped bit": content, "cut": content[:200], "empty": b"", "a pickle": objects.read_bytes()}
    objects.unlink()
    file.write_bytes(damaged[damage])
    assert decoded(("set",), source, decoder)[0][0, 0, 0, 0] == 2
    assert decoded(("set",), source, decoder)[0][0, 0, 0, 0] == 2
    assert decoder.calls == 2


@pytest.mark.parametrize("reason", ["not wanted", "no folder", "too large", "a bucket"])
def test_nothing_is_kept(source, kept, reason, monkeypatch, tmp_path):
    if reason == "not wanted":
        monkeypatch.setenv(FOLDER, "")
    if reason == "no folder":
        kept.write_text("a file where the folder would be")
    if reason == "too large":
        monkeypatch.setattr(module, "LARGEST", 1)
    decoder, place = Decoder(), tmp_path / "elsewhere" if reason == "a bucket" else source
    assert [decoded(("set",), place, decoder)[0][0, 0, 0, 0] for _ in range(2)] == [1, 2]
    assert not kept.is_dir() or not list(kept.iterdir())


def test_a_full_disk_costs_nothing_but_the_cache(source, kept, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert decoded(("set",), source, Decoder())[0].shape == (3, 4, 4, 1)
    assert list(kept.iterdir()) == []
