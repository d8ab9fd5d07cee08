"""Where a user keeps caches."""

import pathlib
from collections.abc import Mapping


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
