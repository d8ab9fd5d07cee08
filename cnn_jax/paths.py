"""Names of files as a user gives them, and where a user keeps caches."""

import os
import pathlib
import sys
import uuid
from collections.abc import Mapping

from cnn_jax.errors import UserError


def expanded(name: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a name, with the user's home for a leading `~`.

    Raises:
      UserError: there is no such home, or the file system cannot look for such a name, such as a very long one.
    """
    shown = repr(os.fspath(name)[:200])
    try:
        path = pathlib.Path(name).expanduser()
        path.exists()
    except RuntimeError:
        raise UserError(f"{shown} starts with the home of a user who is not known here") from None
    except OSError as error:
        raise UserError(f"{shown} is no name of a file: {error.strerror or error}") from None
    return path


def work_directory_path(name: str, *, example: str) -> pathlib.Path:
    """The path of the argument `--workdir`, whose name goes into what is written there, as text.

    Args:
      name: as given.
      example: of a good name, for errors.

    Raises:
      UserError: as `expanded`, an empty name, or one that is no text here: not UTF-8, or not ASCII where Python takes
        all text for ASCII.
    """
    if not name:
        raise UserError(f"--workdir is empty; give a directory such as {example}")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        remedy = "" if encoding == "utf-8" else ", or set PYTHONUTF8=1"
        raise UserError(
            f"--workdir={name!r} is no text in the encoding {encoding} of this system; choose a name such as"
            f" {example}{remedy}"
        ) from None
    return expanded(name)


def require_writable(directory: pathlib.Path) -> None:
    """Refuse a directory that cannot be written into or made, before any work is done; nothing is left there.

    Raises:
      UserError: with the reason that the system gives.
    """
    place = directory.absolute()
    try:
        while not place.exists():
            place = place.parent
        probe = place / f".{uuid.uuid4().hex}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"work directory {str(directory)!r} is not writable: {error.strerror}; choose another --workdir"
        ) from None


def cache_home(environment: Mapping[str, str]) -> pathlib.Path | None:
    """The folder of our caches; None if the environment does not say where the user keeps such things.

    Args:
      environment: `XDG_CACHE_HOME` or `HOME` says where caches are.

    Example:
      >>> str(cache_home({"HOME": "/home/me"}))
      '/home/me/.cache/cnn_jax'
    """
    home = environment.get("XDG_CACHE_HOME") or (environment.get("HOME") and f"{environment['HOME']}/.cache")
    return pathlib.Path(home, "cnn_jax") if home else None
