"""Files that may come from a stranger: only regular ones are opened, and their JSON and names stay within bounds."""

import errno
import io
import json
import os
import stat
from collections.abc import Sequence
from typing import Any

DEEPEST = 100
"""Objects and lists inside one another that JSON may have: whoever walks through it calls itself for each."""
ROOM, DENSEST = 64 * 2**20, 128
"""Bytes that any part of an archive may unpack to, and how many times the archive's own size larger ones may.

Deflate packs zeros to a thousandth; dSprites, black and white shapes, is packed to a 113th.
"""
MOST_LISTED = 50


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file, or a link to one, for reading.

    A pipe would be waited for without end, and a device such as /dev/zero has no end; both are refused unread.

    Raises:
      OSError: it is a pipe, a device, a socket or a directory, or cannot be opened.
    """
    # Without O_NONBLOCK the call itself would wait for a pipe's other end; to a regular file it means nothing.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "it is a pipe or device, no file", os.fspath(path))


def read_regular(path: str | os.PathLike[str], *, largest: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
      path: of the file, or of a link to it.
      largest: bytes that it may have: a file of zeros takes no room on a disk, but would take it in memory.

    Raises:
      OSError: as `open_regular`, or the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if largest is not None and size > largest:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes; {largest:,} are allowed", os.fspath(path))
        return file.read()


def most_unpacked(size: int) -> int:
    """Bytes that a part of an archive may unpack to.

    Args:
      size: of the archive, in bytes.
    """
    return max(ROOM, DENSEST * size)


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
      ValueError: it is no JSON, is no UTF-8, is nested too deep, or has a number of thousands of digits; in one line.

    Example:
      >>> parse_json("[" * 500 + "]" * 500)
      Traceback (most recent call last):
        ...
      ValueError: it is nested deeper than 100
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST}") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]
        if not level:
            return value
    raise ValueError(f"it is nested deeper than {DEEPEST}")


def _children(item: dict[str, Any] | list[Any]) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else item


def one_line(text: str, *, longest: int = 200) -> str:
    r"""A name from a file for a message: what would end a line or steer a terminal stands as its escape.

    Args:
      text: of any characters.
      longest: characters that are shown.

    Example:
      >>> print(one_line("a\nb\x1b[31m"))
      a\nb\x1b[31m
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:longest])
    return shown + "…" * (len(text) > longest)


def listed(names: Sequence[str]) -> str:
    """Names from a file for a message, the first of many."""
    more = f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    return ", ".join(one_line(name) for name in names[:MOST_LISTED]) + more
