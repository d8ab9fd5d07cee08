"""The passport of a run: everything outside the config that its numbers may depend on."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax

PACKAGES = (
    "cnn_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tensorflow-datasets",
    "ml-collections",
    # What decodes images: pixels depend on it.
    "pillow",
    "simplejpeg",
    "grain",
    "pyarrow",
    "array_record",
    "scikit-learn",
)
FLAGS = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "LIBTPU_INIT_ARGS", "NPROC")


def make_passport(*, seed: int, data: Mapping[str, Mapping[str, Any]], devices: int) -> dict[str, Any]:
    """Commit and uncommitted changes, versions, hardware, flags, data checksums, seed and command.

    Args:
      seed: the run's.
      data: split name to origin, size and digest.
      devices: how many devices the run uses.
    """
    device = jax.devices()[0]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [sys.executable, *sys.argv],
        "seed": seed,
        "git": git_state(),
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": {
            "platform": device.platform,
            "device": device.device_kind,
            "devices": devices,
            "processes": jax.process_count(),
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "host": platform.node(),
            "system": platform.platform(),
        },
        "flags": {name: os.environ[name] for name in FLAGS if name in os.environ},
        "data": {split: dict(description) for split, description in data.items()},
    }


def versions() -> dict[str, str]:
    """The installed versions of what determines a run's numbers."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def git_state() -> Mapping[str, Any]:
    """The commit of this checkout and its uncommitted changes; None where it is no checkout.

    Looked up once in a process, which goes on with the code that it has imported.
    """
    root = pathlib.Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=root,
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    # A package installed below somebody else's checkout must not report that one's commit.
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None, "diff": None, "untracked": None}
    # The diff has no files that git does not track yet: those are told by their digests.
    names = (git("ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    untracked = {name: _digest(root / name) for name in names if name}
    return {
        "commit": (git("rev-parse", "HEAD") or "").strip() or None,
        "dirty": bool(git("status", "--porcelain")),
        "diff": git("diff", "--binary", "HEAD", "--", "."),
        "untracked": untracked,
    }


def _digest(path: pathlib.Path) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
