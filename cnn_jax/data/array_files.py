"""Data sets of NumPy arrays: one `.npz` file, or a folder of `.npy` files, which need not fit in memory."""

import contextlib
import functools
import hashlib
import io
import math
import pathlib
import sys
import tokenize
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from cnn_jax.data.examples import Example, digest_of_arrays
from cnn_jax.data.source import MOST_CLASSES, Source, check_class_names
from cnn_jax.data.split_shares import LARGEST_HASHED, SHARES, SPLIT_NAMES, stratified_split
from cnn_jax.errors import UserError
from cnn_jax.ops.image_files import DAMAGED
from cnn_jax.untrusted import listed, most_unpacked, one_line, open_regular

PAIRS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))
"""Names of the images and of the labels of a split."""
WHOLE = ("images", "labels")
"""Their names where there are no splits."""
UNREADABLE = (*DAMAGED, tokenize.TokenError, zipfile.BadZipFile)
LONGEST_HEADER = 16 * 2**10
"""Bytes that are read of an array for its header; NumPy takes one of 10,000, but reads as many as it declares."""
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Stored(NamedTuple):
    """An array in a file.

    Attributes:
      where: the file and the name, for errors.
      shape: as its header has it, which fits the file's size.
      dtype: of its values, no objects.
      load: reads it, or maps it into memory.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]


class ArrayFileExamples:
    """Rows of an array in a file, which is opened when it is needed, in each process.

    Args:
      images: the array.
      rows: which of its rows, in order.
      labels: their class indices.
      name: of the split, for the examples' names.
    """

    def __init__(self, images: Stored, rows: Int[np.ndarray, "N"], labels: Int[np.ndarray, "N"], name: str):
        self._stored, self._rows, self._labels, self._name = images, rows, labels, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        return Example(np.array(self._images[self._rows[index]]), int(self._labels[index]), f"{self._name}[{index}]")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_images"}

    @functools.cached_property
    def _images(self) -> UInt8[np.ndarray, "M *space C"]:
        images = self._stored.load()
        return images[..., None] if images.ndim == 3 else images  # [N, H, W] -> [N, H, W, 1]

    def labels(self) -> Int[np.ndarray, "N"]:
        """All class indices."""
        return self._labels

    def range(self, start: int, stop: int) -> tuple[UInt8[np.ndarray, "n *space C"], Int[np.ndarray, "n"]]:
        """Examples in a row, in memory."""
        return self._images[self._rows[start:stop]], self._labels[start:stop]

    def description(self) -> Mapping[str, Any]:
        """The digest of shapes, pixels and labels; above 1 GiB of shapes and labels."""
        if self._images.nbytes <= LARGEST_HASHED:
            return {"sha256": digest_of_arrays(*self.range(0, len(self))), "digest_of": "contents"}
        content = repr((self._name, self._images.shape)).encode() + self._rows.tobytes() + self._labels.tobytes()
        return {"sha256": hashlib.sha256(content).hexdigest(), "digest_of": "names and sizes"}


def array_source(name: str, *, directory: str | None, split_seed: int) -> Source:
    """NumPy arrays of images and labels: members of an `.npz` file, or `.npy` files of the same names in a folder.

    Images are uint8, `[N, H, W]` (grey) or `[N, *space, C]`; labels are whole numbers from 0, `[N]` or `[N, 1]`. The
    splits train, val or validation, and test are called `train_images` and `train_labels`, or `x_train` and `y_train`,
    and so on; where there are only `images` and `labels`, each class is divided by chance into SHARES (80 %, 10 %,
    10 %). An array `class_names` of text is used if it is there. Nothing in a file is run: pickled objects are refused.

    Args:
      name: path of the file or folder, below `directory` if that is given.
      directory: holds data sets.
      split_seed: of the division, where there are no splits.

    Raises:
      UserError: no such file, no arrays of these names, other types or shapes, or a file that is damaged.
    """
    path = pathlib.Path(directory or ".", name).expanduser()
    if not path.exists():
        raise UserError(f"config.data.name {str(path)!r} does not exist; give an .npz file or a folder of .npy files")
    arrays = _of_folder(path) if path.is_dir() else _of_archive(path)
    shown = f"arrays/{path.name}"
    examples: dict[str, ArrayFileExamples] = {}
    for (image, label), split in _pairs(path, arrays):
        labels = _labels(arrays[label])
        _check_images(arrays[image], count=len(labels), label=label)
        rows = {split: np.arange(len(labels))}
        if not split:
            names = [str(row) for row in range(len(labels))]
            rows = stratified_split(names, labels.tolist(), shares=SHARES, seed=split_seed)
        for part, chosen in rows.items():
            examples[part] = ArrayFileExamples(arrays[image], chosen, labels[chosen], f"{shown}/{part}")
    classes = 1 + max(int(part.labels().max()) for part in examples.values())
    return Source(
        name=shown,
        class_names=_class_names(arrays, classes),
        sizes={split: len(part) for split, part in examples.items()},
        load_range=lambda split, start, stop: examples[split].range(start, stop),
        examples_of=lambda split: examples[split],
    )


def _pairs(path: pathlib.Path, arrays: Mapping[str, Stored]) -> list[tuple[tuple[str, str], str]]:
    """((images, labels), split) for each split; the split is empty where there is only one set."""
    found: dict[str, tuple[str, str]] = {}
    for spelt, split in SPLIT_NAMES.items():
        for names in PAIRS:
            image, label = (name.format(spelt) for name in names)
            if (image in arrays) != (label in arrays):
                there, missing = (image, label) if image in arrays else (label, image)
                raise UserError(f"{str(path)!r} has {there} but no {missing}")
            if image in arrays and split in found:
                raise UserError(f"{str(path)!r} has {found[split][0]} and {image}, both the split {split!r}; keep one")
            if image in arrays:
                found[split] = (image, label)
    if not found and all(name in arrays for name in WHOLE):
        found[""] = WHOLE
    if not found:
        raise UserError(
            f"{str(path)!r} has the arrays {listed(sorted(arrays)) or 'none'}; it needs train_images, train_labels"
            " and so on, or images and labels"
        )
    return [(names, split) for split, names in found.items()]


def _check_images(images: Stored, *, count: int, label: str) -> None:
    if images.dtype != np.uint8:
        raise UserError(f"{images.where} has type {images.dtype}; images must be uint8, 0 to 255")
    if len(images.shape) < 3 or 0 in images.shape[1:]:
        raise UserError(f"{images.where} has shape {images.shape}; images must be [N, H, W] or [N, *space, C]")
    if images.shape[0] != count:
        raise UserError(f"{images.where} has {images.shape[0]} images, {label} has {count} labels")


def _labels(labels: Stored) -> Int[np.ndarray, "N"]:
    if labels.dtype.kind not in "iu":
        raise UserError(f"{labels.where} has type {labels.dtype}; labels must be whole numbers")
    if len(labels.shape) not in (1, 2) or labels.shape[1:] not in ((), (1,)) or not labels.shape[0]:
        raise UserError(f"{labels.where} has shape {labels.shape}; labels must be [N], one number an image")
    values = np.array(labels.load()).reshape(-1)  # [N] or [N, 1] -> [N]
    bad = np.flatnonzero((values < 0) | (values >= MOST_CLASSES))
    if bad.size:
        raise UserError(
            f"{labels.where} has label {values[bad[0]]} at row {bad[0]}, and labels from {values.min()} to"
            f" {values.max()}; classes are counted from 0, and {MOST_CLASSES:,} are the most"
        )
    return values.astype(np.int32)


def _class_names(arrays: Mapping[str, Stored], classes: int) -> tuple[str, ...]:
    """The names that are stored, or the numbers."""
    if "class_names" not in arrays:
        return tuple(str(number) for number in range(classes))
    stored = arrays["class_names"]
    if stored.dtype.kind != "U" or len(stored.shape) != 1:
        raise UserError(
            f"{stored.where} has type {stored.dtype} and shape {stored.shape}; it must be text, one per class"
        )
    if stored.shape[0] > MOST_CLASSES:
        raise UserError(f"{stored.where} has {stored.shape[0]:,} names; {MOST_CLASSES:,} classes are the most")
    text = np.ascontiguousarray(stored.load())
    if (np.frombuffer(text.tobytes(), f"{text.dtype.str[0]}u4") > sys.maxunicode).any():
        raise UserError(f"{stored.where} is damaged: it has characters that no text has")
    names = tuple(str(name) for name in text)
    if len(names) < classes:
        raise UserError(f"{stored.where} has {len(names)} names, labels go up to {classes - 1}")
    return check_class_names(names, stored.where)


def _of_folder(path: pathlib.Path) -> dict[str, Stored]:
    """The `.npy` files of a folder."""
    found = {}
    for file in sorted(path.glob("*.npy")):
        with _readable(str(file)), open_regular(file) as opened:
            shape, dtype = _header(opened, file.stat().st_size, str(file))
        found[file.stem] = Stored(str(file), shape, dtype, functools.partial(_load_file, str(file)))
    return found


def _of_archive(path: pathlib.Path) -> dict[str, Stored]:
    """The members of an `.npz` file."""
    found = {}
    with _readable(str(path)), open_regular(path) as whole, zipfile.ZipFile(whole) as archive:
        most = most_unpacked(path.stat().st_size)
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            where = f"{path}: {one_line(name)}"
            if info.file_size > most:
                raise UserError(
                    f"{where!r} would unpack to {info.file_size:,} bytes; so small an archive may hold {most:,}: store"
                    " it without compression, or as .npy files"
                )
            if name in found:
                raise UserError(f"{where!r} is in the archive twice; keep one")
            with _readable(where), archive.open(info) as opened:
                shape, dtype = _header(opened, info.file_size, where)
            found[name] = Stored(where, shape, dtype, functools.partial(_load_member, str(path), info.filename))
    return found


def _header(file: IO[bytes] | io.BufferedIOBase, size: int, where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, if they are what the file holds: memory is asked for by them."""
    start = io.BytesIO(file.read(LONGEST_HEADER))
    shape, _, dtype = READERS[np.lib.format.read_magic(start)](start)
    if dtype.hasobject:
        raise UserError(f"{where} holds Python objects, which could run anything; store numbers")
    # Elements without bytes, such as texts without characters, could be any number.
    declared = math.prod(shape) * max(dtype.itemsize, 1)
    if min(shape, default=0) < 0 or start.tell() + declared != size:
        shown = f"{dtype}{list(shape)}"[:100]
        raise UserError(f"{where} is damaged: it declares {shown}, but has {size - start.tell():,} bytes")
    return shape, dtype


def _load_file(path: str) -> np.ndarray:
    with _readable(path):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _load_member(path: str, member: str) -> np.ndarray:
    with _readable(f"{path}: {one_line(member)}"), zipfile.ZipFile(path) as archive, archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    """One line for whatever goes wrong with a file."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{where!r} cannot be read: {error.strerror or error}") from None
    except UNREADABLE as error:
        reason = one_line((str(error).splitlines() or [""])[0])
        raise UserError(f"{where!r} is damaged or no array ({type(error).__name__}: {reason})") from None
