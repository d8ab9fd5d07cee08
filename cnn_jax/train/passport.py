"""The passport of a run: everything that its numbers may depend on, so that one changed byte is found."""

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

from cnn_jax.ops.native.library import library
from cnn_jax.processor import instructions, processor
from cnn_jax.train.config import config_digest

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
    "scipy",
    "ml-dtypes",
)
FLAGS = (
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_NUM_CPU_DEVICES",
    "JAX_DISABLE_JIT",
    "LIBTPU_INIT_ARGS",
    "NVIDIA_TF32_OVERRIDE",
    "NPROC",
)
PACKAGE = pathlib.Path(__file__).resolve().parents[1]
DIGITS_OF_A_FILE = 12


def make_passport(
    *,
    seed: int,
    data: Mapping[str, Mapping[str, Any]],
    devices: int,
    config: Mapping[str, Any] | None = None,
    program: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Commit and uncommitted changes, source, config, versions, hardware, flags, data checksums, seed and command.

    Args:
      seed: the run's.
      data: split name to origin, size and digest.
      devices: how many devices the run uses.
      config: what `config.json` is given, from `config.to_plain`: whoever edits the file later is found out.
      program: which runs share the program that computes this one, from `Program.record`; None for a run alone.
    """
    device = jax.devices()[0]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [sys.executable, *sys.argv],
        "seed": seed,
        "git": git_state(),
        "source": source_state(),
        **({} if config is None else {"config": dict(config), "config_sha256": config_digest(config)}),
        **({} if program is None else {"program": dict(program)}),
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": {
            "platform": device.platform,
            "device": device.device_kind,
            "devices": devices,
            "processes": jax.process_count(),
            "processor": processor(),
            # Machines whose processors have one name may differ in these.
            "instructions": instructions(),
            **({"convolutions": library().digest or library().reason} if device.platform == "cpu" else {}),
            "runtime": " ".join(device.client.platform_version.split()),
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


@functools.cache
def source_state() -> Mapping[str, Any]:
    """The SHA-256 of the package, and the beginning of each file's, which says where two packages differ.

    Looked up once in a process, which goes on with the code that it has imported.
    """
    return digest_of_files(PACKAGE)


def digest_of_files(root: pathlib.Path) -> dict[str, Any]:
    """`sha256` of all files below a folder, names and bytes, and `files`: relative path to the digits of its own.

    Args:
      root: such as the package. What Python compiles, and hidden files such as an editor's, do not count.
    """
    whole, files = hashlib.sha256(), {}
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        name = path.relative_to(root).as_posix()
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        own = _digest(path)
        whole.update(f"{name}\0{own}\n".encode())
        files[f"{root.name}/{name}"] = own[:DIGITS_OF_A_FILE] if own else None
    return {"sha256": whole.hexdigest(), "files": files}


@functools.cache
def git_state() -> Mapping[str, Any]:
    """The commit of this checkout and its uncommitted changes; None where it is no checkout.

    Looked up once in a process, which goes on with the code that it has imported.
    """
    # A package installed below somebody else's checkout must not report that one's commit.
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None, "diff": None, "untracked": None}
    # The diff has no files that git does not track yet: those are told by their digests.
    names = (_git("ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    untracked = {name: _digest(root / name) for name in names if name}
    return {
        "commit": (_git("rev-parse", "HEAD") or "").strip() or None,
        "dirty": bool(_git("status", "--porcelain")),
        "diff": _git("diff", "--binary", "HEAD", "--", "."),
        "untracked": untracked,
    }


def files_changed_since(commit: str | None) -> list[str] | None:
    """The package's files that are not what they were in a commit; None where git cannot tell.

    Args:
      commit: of a passport.
    """
    if commit is None or not (PACKAGE.parent / ".git").exists():
        return None
    names = _git("diff", "--name-only", "-z", f"{commit}^{{commit}}", "--", PACKAGE.name)
    return None if names is None else [name for name in names.split("\0") if name]


def _git(*arguments: str) -> str | None:
    """What git says in the package's checkout; None where it fails."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=PACKAGE.parent,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _digest(path: pathlib.Path) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
