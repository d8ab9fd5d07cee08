"""Names of files as a user gives them, and where a user keeps caches."""

import os
import pathlib
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
