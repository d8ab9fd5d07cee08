"""Folders of image files, one folder per class."""

import hashlib
import itertools
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from cnn_jax.data.examples import Example
from cnn_jax.data.source import Source
from cnn_jax.data.split_shares import LARGEST_HASHED, SHARES, SPLIT_NAMES, stratified_split
from cnn_jax.errors import CorruptImageError, UserError
from cnn_jax.untrusted import read_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LARGEST_FILE = 2**30
"""Bytes of an image file; the pixels that are allowed take a third of it."""

Listing = tuple[tuple[str, int], ...]
"""(path below the root with forward slashes, class index) of each example of a split."""


class FolderExamples:
    """The image files of one split.

    Args:
      root: the folder.
      listing: the files and their classes, in order.
    """

    def __init__(self, root: str, listing: Listing):
        self._root, self._listing = root, listing

    def __len__(self) -> int:
        return len(self._listing)

    def __getitem__(self, index: int) -> Example:
        path, label = self._listing[index]
        whole = os.path.join(self._root, path)
        try:
            return Example(read_regular(whole, largest=LARGEST_FILE), label, whole)
        except OSError as error:
            raise CorruptImageError(f"{whole!r} cannot be read: {error.strerror or error}") from None

    def labels(self) -> Int[np.ndarray, "N"]:
        """All class indices; no file is read."""
        return np.fromiter((label for _, label in self._listing), np.int32, len(self._listing))

    def description(self) -> Mapping[str, Any]:
        """The digest of paths, classes and contents; above 1 GiB of sizes instead of contents."""
        paths = [pathlib.Path(self._root, path) for path, _ in self._listing]
        sizes = [path.stat().st_size if path.is_file() else -1 for path in paths]
        read = sum(sizes) <= LARGEST_HASHED
        digest = hashlib.sha256()
        for (name, label), path, size in zip(self._listing, paths, sizes, strict=True):
            digest.update(repr((os.fsencode(name), label, size)).encode())
            if read and size >= 0 and os.access(path, os.R_OK):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return {"sha256": digest.hexdigest(), "digest_of": "contents" if read else "names and sizes"}


def folder_source(name: str, *, directory: str | None, split_seed: int) -> Source:
    """A folder of `.jpg`, `.jpeg`, `.png` and `.webp` files, decoded to RGB. The names of classes are those of folders.

    The first of these that is there makes the splits:

    1. Folders `train` and `val` (or `validation`) and `test`, each with the folders of the classes.
    2. Files `train.txt` and `validation.txt` (or `val.txt`) and `test.txt` beside the folders of the classes; each line
       is a path below the root, such as `cat/1.jpg`.
    3. A division of each class by chance: SHARES (80 %, 10 %, 10 %), which depends on `split_seed` and on the paths.

    Classes are sorted by name, files by path. Links are followed. Hidden files and folders, and files of other
    extensions, are left out.

    Args:
      name: the folder's path, below `directory` if that is given.
      directory: holds data sets.
      split_seed: of the division, where the folder has none.

    Raises:
      UserError: no such folder or it may not be read, a class without images, a class that is not in the training
        split, a listed file that is not there.
    """
    root = pathlib.Path(directory or ".", name).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(f"config.data.name {str(root)!r} {what}; give the folder that holds the classes' folders")
    classes, listings = _listings(root, split_seed)
    return Source(
        name=f"folder/{root.name}",
        class_names=classes,
        sizes={split: len(listing) for split, listing in listings.items()},
        examples_of=lambda split: FolderExamples(str(root.resolve()), listings[split]),
        channels=3,
    )


def _listings(root: pathlib.Path, split_seed: int) -> tuple[tuple[str, ...], Mapping[str, Listing]]:
    """The names of the classes, and the files of each split."""
    folders = _folders(root)
    if "train" in folders:
        return _of_folders(root, {folder: SPLIT_NAMES[folder] for folder in folders if folder in SPLIT_NAMES})
    classes = tuple(folders)
    if not classes:
        raise UserError(f"{str(root)!r} has no folders; it needs one for each class, with images in it")
    lists = {path: split for stem, split in SPLIT_NAMES.items() if (path := root / f"{stem}.txt").is_file()}
    if lists:
        _require_one_each(root, lists.values())
        listings = {split: _listed(path, classes) for path, split in lists.items()}
        for (one, first), (other, second) in itertools.combinations(listings.items(), 2):
            shared = sorted(set(first) & set(second))
            if shared:
                raise UserError(f"{str(root)!r}: {shared[0][0]!r} is listed for {one} and for {other}; keep one")
        return classes, listings
    files = [(path, number) for number, name in enumerate(classes) for path in _images(root, name)]
    parts = stratified_split([path for path, _ in files], [label for _, label in files], shares=SHARES, seed=split_seed)
    return classes, {split: tuple(files[row] for row in rows) for split, rows in parts.items()}


def _of_folders(root: pathlib.Path, splits: Mapping[str, str]) -> tuple[tuple[str, ...], Mapping[str, Listing]]:
    """The splits of `root/train/class/…`."""
    _require_one_each(root, splits.values())
    classes = tuple(_folders(root / "train"))
    if not classes:
        raise UserError(f"{str(root / 'train')!r} has no folders; it needs one for each class, with images in it")
    listings = {}
    for folder, split in splits.items():
        there = _folders(root / folder)
        unknown = [name for name in there if name not in classes]
        if unknown:
            raise UserError(
                f"{str(root / folder / unknown[0])!r} is a class that {str(root / 'train')!r} does not have"
            )
        listings[split] = tuple(
            (path, classes.index(name)) for name in there for path in _images(root, f"{folder}/{name}")
        )
    return classes, {split: listing for split, listing in listings.items() if listing}


def _require_one_each(root: pathlib.Path, splits: Collection[str]) -> None:
    if len(set(splits)) < len(splits):
        raise UserError(f"{str(root)!r} has both val and validation; keep one of them")


def _folders(root: pathlib.Path) -> list[str]:
    """The folders in one, sorted, without hidden ones."""
    names = sorted(entry.name for entry in _entries(root) if not entry.name.startswith(".") and _is(entry, "folder"))
    for name in names:
        if not name.isprintable():  # also what is no UTF-8
            raise UserError(f"{str(root)!r} has a folder named {name!r}; rename it: classes have printable names")
    return names


def _images(root: pathlib.Path, folder: str) -> list[str]:
    """The image files of a class's folder, as sorted paths below the root; there must be one."""
    names = sorted(
        entry.name
        for entry in _entries(root / folder)
        if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and _is(entry, "file")
    )
    if not names:
        raise UserError(
            f"class folder {str(root / folder)!r} has no images ({', '.join(SUFFIXES)}); add some or delete it"
        )
    return [f"{folder}/{name}" for name in names]


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    """Whether an entry is a folder or a regular file, links followed.

    Raises:
      UserError: it cannot be told, as of links in a circle.
    """
    try:
        return entry.is_dir() if kind == "folder" else entry.is_file() or not os.path.exists(entry.path)
    except OSError as error:
        raise UserError(f"{entry.path!r} cannot be read: {error.strerror or error}") from None


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"folder {str(folder)!r} cannot be read: {error.strerror or error}") from None


def _listed(path: pathlib.Path, classes: Sequence[str]) -> Listing:
    """The files that a text file lists."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from None
    listing, seen = [], set()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        name = pathlib.PurePosixPath(line)
        if name.is_absolute() or ".." in name.parts or len(name.parts) < 2 or name.parts[0] not in classes:
            raise UserError(f"{str(path)!r}, line {number}: {line!r} is no path such as '{classes[0]}/image.jpg'")
        if name in seen:
            raise UserError(f"{str(path)!r}, line {number}: {line!r} is listed twice")
        if not os.path.lexists(path.parent / name) or (path.parent / name).is_dir():
            raise UserError(f"{str(path)!r}, line {number}: there is no file {line!r}")
        seen.add(name)
        listing.append((str(name), classes.index(name.parts[0])))
    if not listing:
        raise UserError(f"{str(path)!r} lists no files; write one path such as '{classes[0]}/image.jpg' a line")
    return tuple(listing)
