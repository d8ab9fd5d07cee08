"""Files of named arrays: safetensors in and out, torch's own format in."""

import contextlib
import pathlib
import uuid
from collections.abc import Mapping

import jax
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.untrusted import open_regular
from cnn_jax.weights.pth import read_pth

HEADER_OFFSET = 8
"""Bytes of a safetensors file before its header, a JSON object."""


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors or torch file by name; which of the two it is, is seen from its content.

    Raises:
      UserError: the file cannot be read, is neither, is damaged, or asks for anything but tensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        what = "a directory" if path.is_dir() else "a pipe or device" if path.exists() else "not there"
        raise UserError(f"{str(path)!r} is {what}, no file of weights")
    try:
        with open_regular(path) as file:
            start = file.read(HEADER_OFFSET + 1)
        if start[HEADER_OFFSET:] == b"{" or path.suffix == ".safetensors":
            return load_file(path)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:  # types of elements that NumPy lacks
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(f"{str(path)!r} is no safetensors file, or damaged ({reason})") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    return read_pth(path)


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; none of another file, or of one that is not there."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # opening a pipe would wait for its other end
        return {}
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError):
        return {}


def write_safetensors(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray | jax.Array], *, metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file, whole or not at all.

    Args:
      path: replaced if it is there.
      arrays: by name.
      metadata: texts for the file's header; other libraries ask for a "format".

    Raises:
      UserError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    part = unfinished(path)
    try:
        part.open("xb").close()
        mode = part.stat().st_mode  # as the umask says; the library's own files are for their owner alone
        # The library takes the memory as it lies, whatever the strides say.
        save_file({name: np.asarray(value, order="C") for name, value in arrays.items()}, part, dict(metadata))
        part.chmod(mode)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{str(path)!r} cannot be written: {error}") from None
    finally:
        remove(part)


def unfinished(path: pathlib.Path) -> pathlib.Path:
    """A name beside a file for what is to become it, another one each time."""
    return path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}.part")


def remove(part: pathlib.Path) -> None:
    """Removes an unfinished file, if it is there; where that fails, what went wrong before is told, not this."""
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
