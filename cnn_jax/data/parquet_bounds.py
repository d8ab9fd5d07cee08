"""What a parquet file may unpack to: a stranger's could be a bomb, or say of itself what is not so."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnn_jax.data.source import check_class_names
from cnn_jax.errors import UserError
from cnn_jax.untrusted import most_unpacked, one_line

BAD_FILE = (OSError, ValueError, LookupError, MemoryError, NotImplementedError)
"""What pyarrow raises; its own errors are ValueErrors and such."""
FEW_ROWS = 16
"""Rows that are unpacked before their size is looked at."""
REMEDY = "if it is no bomb, write it with less compression"


def check_rows(file: Any, path: pathlib.Path) -> int:
    """Rows of an opened file, which are no more than its bytes: each has an image.

    Raises:
      UserError: it declares more, and memory would be asked for them.
    """
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    size = path.stat().st_size
    if min(sizes, default=0) < 0 or sum(sizes) > size:
        raise UserError(f"{str(path)!r} is damaged: it declares {sum(sizes):,} rows, but has {size:,} bytes")
    return sum(sizes)


def check_unpacked(file: Any, path: pathlib.Path, column: str) -> None:
    """Look at what an opened file says that its images unpack to.

    Raises:
      UserError: much more than the file has.
    """
    most = most_unpacked(path.stat().st_size)
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        parts = [group.column(place) for place in range(group.num_columns)]
        size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == column)
        if size > most:
            raise UserError(
                f"{str(path)!r}: the images of row group {number} unpack to {size:,} bytes, {most:,} are allowed;"
                f" {REMEDY}"
            )


def row_group_images(path: str, group: int, column: str) -> Any:
    """Pyarrow's array of the images of a row group.

    They are read a few at a time: an image that is stored once can stand in any number of rows.

    Raises:
      UserError: the file is damaged, or they are much more than the file has.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches, size = [], 0
    with readable(path):
        most = most_unpacked(pathlib.Path(path).stat().st_size)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=FEW_ROWS, row_groups=[group], columns=[column]):
                batches.append(batch)
                size += batch.nbytes
                if size > most:
                    raise UserError(f"{path!r}: row group {group} unpacks to more than {most:,} bytes; {REMEDY}")
        return pa.Table.from_batches(batches).column(column).combine_chunks()


def texts(column: Any, path: pathlib.Path, name: str) -> np.ndarray:
    """The values of a column of labels that are texts.

    Raises:
      UserError: a text is no name of a class, or they are much more than the file has.
    """
    import pyarrow as pa

    parts = []
    for chunk in column.chunks:
        encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        known = tuple(text or "" for text in encoded.dictionary.to_pylist())
        values = np.asarray(check_class_names(known, f"{str(path)!r}, column {name!r}"), np.str_)
        if values.itemsize * len(chunk) > most_unpacked(path.stat().st_size):
            raise UserError(f"{str(path)!r}: column {name!r} has long labels in too many rows; {REMEDY}")
        parts.append(values[encoded.indices.to_numpy(zero_copy_only=False)] if len(chunk) else np.zeros(0, np.str_))
    return np.concatenate(parts) if parts else np.zeros(0, np.str_)


@contextlib.contextmanager
def readable(path: str | pathlib.Path) -> Iterator[None]:
    """One line for whatever pyarrow says of a file."""
    try:
        yield
    except UserError:
        raise
    except BAD_FILE as error:
        raise damaged(path, error) from None


def damaged(path: str | pathlib.Path, error: Exception) -> UserError:
    """The error for a file that pyarrow refuses."""
    reason = one_line((str(error).splitlines() or [""])[0])
    return UserError(f"{str(path)!r} is no parquet file or damaged ({type(error).__name__}: {reason})")
