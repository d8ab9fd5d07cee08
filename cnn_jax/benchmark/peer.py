"""The peers' own environments: found, or made once outside the package; never among its dependencies."""

import os
import pathlib
import subprocess
import sys
import venv

PACKAGES = {
    "torch": ("torch==2.13.0", "numpy", "setuptools"),
    "tensorflow": ("tensorflow-cpu==2.21.0", "numpy"),
}
"""What each environment has: the module of its name, and what that needs besides, torch.compile for one."""

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "benchmarks"
"""Where the scripts are that run in it."""


def cache_folder() -> pathlib.Path:
    """What the benchmark keeps between runs: `$XDG_CACHE_HOME/cnn_jax/benchmark`, by default below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "cnn_jax" / "benchmark"


def find_torch(python: str | None) -> tuple[str | None, str]:
    """A Python with torch, and what to say about it.

    Args:
      python: one to use; default is the benchmark's own environment, which is made if it is not there.

    Returns:
      (path, "") or (None, why there is none).
    """
    return _find("torch", python)


def find_tensorflow(python: str | None) -> tuple[str | None, str]:
    """A Python with TensorFlow, as `find_torch`."""
    return _find("tensorflow", python)


def _find(module: str, python: str | None) -> tuple[str | None, str]:
    if python is not None:
        return (python, "") if _has(module, python) else (None, f"{python} cannot import {module}")
    packages, folder = PACKAGES[module], cache_folder() / module
    own = str(folder / "bin" / "python")
    if _has(module, own):
        return own, ""
    print(f"making an environment with {packages[0]} in {folder} (once; a few minutes)", file=sys.stderr)
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"no environment can be made in {folder}: {error}"
    done = subprocess.run(
        [own, "-m", "pip", "install", "--quiet", *packages],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode or not _has(module, own):
        reason = (done.stderr.strip().splitlines() or [f"{module} cannot be imported"])[-1]
        return None, f"{packages[0]} could not be installed into {folder}: {reason}"
    return own, ""


def _has(module: str, python: str) -> bool:
    try:
        done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def peer_environment() -> dict[str, str]:
    """The environment variables of a torch process: what it compiles is kept between runs."""
    return {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache_folder() / "inductor")}
