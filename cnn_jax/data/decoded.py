"""Images decoded, and kept between runs: decoding a data set takes longer than a short training's compilation."""

import hashlib
import json
import os
import pathlib
import tempfile
import tokenize
import zipfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from cnn_jax.errors import UserError
from cnn_jax.ops.image_files import DAMAGED
from cnn_jax.untrusted import open_regular

FOLDER = "CNN_JAX_DECODED_CACHE"
"""The environment variable that names the folder; without it, or where it is empty, nothing is kept."""
LARGEST = 2**30
"""Bytes of images that are kept at most."""

DIGEST_BYTES = hashlib.sha256().digest_size

Arrays = tuple[np.ndarray, np.ndarray]


def stack_images(
    images: Iterable[tuple[str, UInt8[np.ndarray, "*space C"]]], *, count: int
) -> UInt8[np.ndarray, "N *space C"]:
    """Pixels of equal size to one array.

    Args:
      images: the name and the pixels of each, N in all.
      count: how many there are at most; memory is asked for once.

    Raises:
      UserError: images of different sizes, or too many for the memory.
    """
    stacked, first, number = np.empty((0, 0, 0, 0), np.uint8), "", 0
    for number, (name, pixels) in enumerate(images, start=1):
        if number == 1:
            stacked, first = _room(count, pixels.shape), name
        if pixels.shape != stacked.shape[1:]:
            raise UserError(
                f"{name} is {_times(pixels.shape)}, {first} is {_times(stacked.shape[1:])}; only equal-sized images can"
                " be held in memory: give data.transforms a resize and a crop, or set data.stream"
            )
        stacked[number - 1] = pixels
    return stacked[:number]


def _room(count: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "N *space C"]:
    try:
        return np.empty((count, *shape), np.uint8)
    except MemoryError:
        raise UserError(
            f"{count:,} images of {_times(shape)} do not fit in memory; shrink them or set data.stream"
        ) from None


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)


def decoded(identity: Sequence[str | int], source: pathlib.Path, decode: Callable[[], Arrays]) -> Arrays:
    """What `decode` returns, read from the last time where nothing has changed since.

    A kept file begins with the digest of what follows; one that is damaged or cannot be read is made anew, and one that
    cannot be written is done without.

    Args:
      identity: what else the result depends on, such as the split and the version of the decoder.
      source: the folder of encoded files: their names, sizes and times of change are part of the identity.
      decode: makes images uint8 `[N, *space, C]` and labels `[N]`.
    """
    folder = os.environ.get(FOLDER)
    if not folder or not source.is_dir():  # TFDS reads from buckets too
        return decode()
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(source.iterdir())]
    name = hashlib.sha256(json.dumps([str(source.resolve()), *identity, files]).encode()).hexdigest()
    path = pathlib.Path(folder) / name
    kept = _read(path)
    if kept is not None:
        return kept
    images, labels = decode()
    if images.nbytes <= LARGEST:
        _keep(path, images, labels)
    return images, labels


def _read(path: pathlib.Path) -> Arrays | None:
    """What a file holds, or None where there is no file that can be read, or a damaged one."""
    try:
        with open_regular(path) as file:
            digest = file.read(DIGEST_BYTES)
            # Not the checksums of the archive: NumPy trusts its headers, and stops before the end where one says so.
            if hashlib.file_digest(file, "sha256").digest() != digest:
                return None
            file.seek(DIGEST_BYTES)
            with np.load(file, allow_pickle=False) as kept:
                return kept["images"], kept["labels"]
    except (*DAMAGED, OSError, tokenize.TokenError, zipfile.BadZipFile):
        return None  # also what has the right digest, but was not written here


def _keep(path: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write the file whole or not at all: other runs may read it meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            unfinished = pathlib.Path(part.name)
    except OSError:
        return
    try:
        with unfinished.open("w+b") as file:
            file.write(bytes(DIGEST_BYTES))
            np.savez(file, images=images, labels=labels)
            file.seek(DIGEST_BYTES)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)
        unfinished.replace(path)
    except OSError:  # a full disk costs the next run its time, not this one its data
        unfinished.unlink(missing_ok=True)
