"""Parquet files of encoded images and labels, as Hugging Face's `datasets` writes them."""

import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from cnn_jax.data.examples import Example
from cnn_jax.data.parquet_bounds import BAD_FILE, check_rows, check_unpacked, damaged, readable, row_group_images, texts
from cnn_jax.data.source import MOST_CLASSES, Source, check_class_names
from cnn_jax.data.split_shares import LARGEST_HASHED, SPLIT_NAMES
from cnn_jax.errors import CorruptImageError, UserError
from cnn_jax.untrusted import listed, one_line, parse_json

FILE = re.compile(r"(?P<split>[A-Za-z_]+)(-(?P<number>\d{5})-of-(?P<count>\d{5}))?(-[0-9a-f]+)?\.parquet")
IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label")
"""Names that columns usually have, the most usual first."""
UNLABELLED = -1
"""The label of a test split whose labels are kept secret, as ImageNet's; nobody can train or be measured on it."""
RECENT = 4
"""Row groups that are kept in memory."""


class Shard(NamedTuple):
    """One file of a split.

    Attributes:
      path: of the file.
      starts: the first row of each row group, and behind them the number of rows.
    """

    path: str
    starts: Int[np.ndarray, "_"]


class ParquetExamples:
    """The rows of the files of one split; images are read one row group at a time.

    Args:
      shards: the files, in order.
      column: of the images.
      labels: class indices.
      name: of the split, for the examples' names.
    """

    def __init__(self, shards: Sequence[Shard], column: str, labels: Int[np.ndarray, "N"], name: str):
        self._shards, self._column, self._labels, self._name = tuple(shards), column, labels, name
        self._ends = np.cumsum([shard.starts[-1] for shard in shards])
        self._recent: dict[tuple[int, int], Any] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_recent": {}}

    def __getitem__(self, index: int) -> Example:
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[number]
        row = index - int(self._ends[number] - shard.starts[-1])
        group = int(np.searchsorted(shard.starts, row, side="right")) - 1
        try:
            value = self._group(number, group)[row - int(shard.starts[group])].as_py()
        except UnicodeDecodeError:
            raise CorruptImageError(f"{self._name}[{index}] has a path that is no text in {shard.path!r}") from None
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        name = f"{self._name}[{index}]" + (f" ({one_line(str(path))})" if path else "")
        if not content or not isinstance(content, bytes):
            raise CorruptImageError(f"{name!r} has no bytes in {shard.path}")
        return Example(content, int(self._labels[index]), name)

    def _group(self, number: int, group: int) -> Any:
        """The images of a row group; a few are kept, as examples that follow each other are mostly in the same one."""
        found = self._recent.get((number, group))
        if found is None:
            shard = self._shards[number]
            found = row_group_images(shard.path, group, self._column)
            rows = int(shard.starts[group + 1] - shard.starts[group])
            if len(found) != rows:
                raise UserError(f"{shard.path!r} is damaged: row group {group} has {len(found)} rows, not {rows}")
            self._recent[number, group] = found
            for old in list(self._recent)[:-RECENT]:
                self._recent.pop(old, None)
        return found

    def labels(self) -> Int[np.ndarray, "N"]:
        """All class indices; no image is read."""
        return self._labels

    def description(self) -> Mapping[str, Any]:
        """The digest of the files' contents; above 1 GiB of their names and sizes."""
        paths = [pathlib.Path(shard.path) for shard in self._shards]
        sizes = [path.stat().st_size for path in paths]
        read = sum(sizes) <= LARGEST_HASHED
        digest = hashlib.sha256()
        for path, size in zip(paths, sizes, strict=True):
            digest.update(path.read_bytes() if read else repr((path.name, size)).encode())
        return {"sha256": digest.hexdigest(), "digest_of": "contents" if read else "names and sizes"}


def parquet_source(name: str, *, directory: str | None, split_seed: int) -> Source:
    """A folder of files such as `train-00000-of-00002.parquet` or `test.parquet`, also in its folder `data`.

    The column of images holds the contents of image files, alone or as a struct `{bytes, path}`; that of labels whole
    numbers or text. They are found by the types that Hugging Face's metadata give them, else by their usual names:
    image or img, label, labels or fine_label. The names of the classes are those of the metadata; else the texts of the
    training split, sorted, or the numbers. Images are decoded to RGB.

    To read one image a whole row group is read. That is fast in order, but a shuffled stream reads a row group for each
    example: write files with few rows in a group for it, or hold the data in memory.

    Args:
      name: path of the folder, below `directory` if that is given.
      directory: holds data sets.
      split_seed: not used; the files are the splits.

    Raises:
      UserError: no such folder, no such files, some of them missing or damaged, no such columns, or labels that are
        missing or unknown.
    """
    del split_seed
    root = pathlib.Path(directory or ".", name).expanduser()
    shown = f"parquet/{root.name}"
    files = _files(root)
    first = files["train"] if "train" in files else next(iter(files.values()))
    image, label, known = _columns(first[0])
    values = {split: np.concatenate([_column(path, label) for path in paths]) for split, paths in files.items()}
    names = known or _names(values["train" if "train" in values else next(iter(values))])
    examples = {}
    for split, paths in files.items():
        shards = [Shard(str(path), _starts(path, image)) for path in paths]
        examples[split] = ParquetExamples(
            shards, image, _indices(values[split], names, root, split), f"{shown}/{split}"
        )
    return Source(
        name=shown,
        class_names=names,
        sizes={split: len(part) for split, part in examples.items()},
        examples_of=lambda split: examples[split],
        channels=3,
    )


def _files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of each split, in order."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(f"config.data.name {str(root)!r} {what}; give the folder that holds .parquet files")
    found: dict[str, dict[int, pathlib.Path]] = {}
    counts: dict[str, int] = {}
    for path in sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet")):
        if not path.is_file():  # a pipe would be waited for
            raise UserError(f"{str(path)!r} is no file, but a pipe, a device, a folder or a link to nothing")
        match = FILE.fullmatch(path.name)
        if not match:
            raise UserError(f"{str(path)!r} names no split; call it such as train-00000-of-00001.parquet")
        split = SPLIT_NAMES.get(match["split"], match["split"])
        number, count = int(match["number"] or 0), int(match["count"] or 1)
        if number in found.setdefault(split, {}) or counts.setdefault(split, count) != count:
            raise UserError(f"{str(path)!r} and {str(found[split][min(found[split])])!r} are two sets of one split")
        found[split][number] = path
    for split, paths in found.items():
        missing = sorted(set(range(counts[split])) - set(paths))
        if missing:
            raise UserError(
                f"{str(root)!r}: file {missing[0]} of the {counts[split]} of the split {split!r} is missing"
            )
    if not found:
        raise UserError(f"{str(root)!r} has no .parquet files, such as train-00000-of-00001.parquet")
    return {split: [paths[number] for number in sorted(paths)] for split, paths in found.items()}


def _columns(path: pathlib.Path) -> tuple[str, str, tuple[str, ...] | None]:
    """The columns of images and of labels, and the names of the classes if they are known."""
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        stored = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = {
            key: value for key, value in stored.get("info", {}).get("features", {}).items() if key in schema.names
        }
        types = {key: value.get("_type") if isinstance(value, dict) else None for key, value in features.items()}
    except (*BAD_FILE, AttributeError, TypeError) as error:
        raise damaged(str(path), error) from None
    image = _column_of(path, schema.names, [key for key in types if types[key] == "Image"], IMAGES)
    label = _column_of(path, schema.names, [key for key in types if types[key] == "ClassLabel"], LABELS)
    names = features.get(label, {}).get("names") if types.get(label) == "ClassLabel" else None
    if names is not None and not isinstance(names, list):
        raise UserError(f"{str(path)!r}: the names of the classes are {names!r}; they must be a list of text")
    known = check_class_names(tuple(str(name) for name in names), f"{str(path)!r}") if names else None
    return image, label, known


def _column_of(path: pathlib.Path, there: Sequence[str], typed: Sequence[str], usual: Sequence[str]) -> str:
    for name in usual:
        if name in (typed or there):
            return name
    if len(typed) == 1:
        return typed[0]
    raise UserError(f"{str(path)!r} has the columns {listed(there)}; one must be called {' or '.join(usual)}")


def _column(path: pathlib.Path, name: str) -> np.ndarray:
    """The values of a column of labels: whole numbers or text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # As it is stored, each text once: a long one can stand in any number of rows.
    with readable(path), pq.ParquetFile(path, read_dictionary=[name]) as file:
        rows = check_rows(file, path)
        column = file.read(columns=[name]).column(name)
    if len(column) != rows:
        raise UserError(f"{str(path)!r} is damaged: column {name!r} has {len(column)} values for {rows} rows")
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{str(path)!r}: column {name!r} is {kind}; labels are whole numbers or text")
    if column.null_count:
        raise UserError(f"{str(path)!r}: column {name!r} has {column.null_count} rows without a label")
    if not pa.types.is_integer(kind):
        with readable(path):
            return texts(column, path, name)
    try:
        return np.asarray(column.to_pylist(), np.int64)
    except OverflowError:
        raise UserError(f"{str(path)!r}: column {name!r} has labels beyond 2⁶³; classes are counted from 0") from None


def _names(values: np.ndarray) -> tuple[str, ...]:
    """Names of the classes, from the labels alone."""
    if values.dtype.kind == "U":
        return tuple(str(name) for name in np.unique(values))
    if values.max(initial=0) >= MOST_CLASSES:
        raise UserError(f"a label is {values.max()}; {MOST_CLASSES:,} classes are the most")
    return tuple(str(number) for number in range(int(values.max(initial=0)) + 1))


def _indices(values: np.ndarray, names: Sequence[str], root: pathlib.Path, split: str) -> Int[np.ndarray, "N"]:
    """Class indices of the labels of a split."""
    if values.dtype.kind != "U":
        bad = np.flatnonzero((values < UNLABELLED) | (values >= len(names)))
        if bad.size:
            raise UserError(
                f"{str(root)!r}, split {split!r}: row {bad[0]} has label {values[bad[0]]}, outside [0, {len(names)})"
            )
        return values.astype(np.int32)
    order = {name: number for number, name in enumerate(names)}
    unknown = [name for name in np.unique(values) if name not in order]
    if unknown:
        raise UserError(f"{str(root)!r}, split {split!r}: label {str(unknown[0])!r} is no class of the training split")
    return np.array([order[name] for name in values.tolist()], np.int32)


def _starts(path: pathlib.Path, column: str) -> Int[np.ndarray, "_"]:
    """The first row of each row group, and the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with readable(path), pq.ParquetFile(path) as file:
        check_unpacked(file, path, column)
        if column not in file.schema_arrow.names:
            raise UserError(f"{str(path)!r} has no column {column!r}, which the split's first file has")
        kind = file.schema_arrow.field(column).type
        if not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise UserError(f"{str(path)!r}: column {column!r} is {kind}; images are encoded files")
        metadata = file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))])
