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
        return np.full((3, 4, 4, 1), self.calls % 256, np.uint8), np.arange(3)


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


def test_a_damaged_file_is_made_anew(source, kept):
    decoder = Decoder()
    decoded(("set",), source, decoder)
    [file] = kept.iterdir()
    content = file.read_bytes()
    flipped = (content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :] for i in range(len(content)))
    damaged = [*flipped, content[:200], content[:32], content + b"more", b""]
    for calls, bad in enumerate(damaged, start=2):
        file.write_bytes(bad)
        assert decoded(("set",), source, decoder)[0][0, 0, 0, 0] == calls % 256
    # The last one was kept anew, and whole.
    assert decoded(("set",), source, decoder)[0][0, 0, 0, 0] == len(damaged) % 256 + 1
    assert decoder.calls == len(damaged) + 1


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


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_a_full_disk_costs_nothing_but_the_cache(source, kept, monkeypatch, fails):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"write": (np, "savez", full), "replace": (module.pathlib.Path, "replace", full)}[fails])
    assert decoded(("set",), source, Decoder())[0].shape == (3, 4, 4, 1)
    assert list(kept.iterdir()) == []
