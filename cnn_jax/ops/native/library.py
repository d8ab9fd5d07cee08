"""The compiled library of convolutions: found or compiled at its first use, and made known to XLA.

Machine code fits one kind of processor, and its interface one version of jaxlib, so that it is compiled where it is
used, by the system's C++ compiler, like the programs that XLA compiles; it takes about five seconds, once. Without a
compiler XLA's own convolutions are used.
"""

import ctypes
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping

import jax

from cnn_jax.paths import cache_home
from cnn_jax.processor import kind

FOLDER = "CNN_JAX_NATIVE_CACHE"
"""The environment variable that names the library's folder, by default in the user's cache; empty, there is none."""
HERE = pathlib.Path(__file__).parent
FUNCTIONS = ("convolve", "input_gradient", "kernel_gradient")
COMPILERS = ("c++", "g++", "clang++")
THIS_PROCESSOR = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
OPTIONS = ("-std=c++17", "-O3", THIS_PROCESSOR, "-ffp-contract=fast", "-fPIC", "-shared")
SECONDS = 300
"""After which a compiler is given up."""


@dataclasses.dataclass(frozen=True)
class Library:
    """What is used.

    Attributes:
      digest: of its sources, options and versions; "" where there is none.
      reason: why there is none.
    """

    digest: str
    reason: str = ""

    @property
    def description(self) -> str:
        """A line for people."""
        if self.digest:
            return f"convolutions compiled for this processor: {self.digest}"
        return f"convolutions on a CPU are XLA's, which take up to twice as long: {self.reason}"

    def target(self, function: str) -> str:
        """The name that XLA knows one of `FUNCTIONS` by."""
        return f"cnn_jax_{function}_{self.digest}"


def library_folder(environment: Mapping[str, str]) -> pathlib.Path | None:
    """The folder of the compiled library; None where there is none to be.

    Args:
      environment: `CNN_JAX_NATIVE_CACHE`, or what says where the user's caches are.

    Example:
      >>> str(library_folder({"XDG_CACHE_HOME": "/caches"}))
      '/caches/cnn_jax/native'
    """
    if FOLDER in environment:
        return pathlib.Path(environment[FOLDER]) if environment[FOLDER] else None
    home = cache_home(environment)
    return None if home is None else home / "native"


@functools.cache
def library() -> Library:
    """The library, compiled if it has to be; where that fails, a line on standard error says so, once."""
    folder = library_folder(os.environ)
    if folder is None:
        return Library("", f"{FOLDER} is empty" if FOLDER in os.environ else "there is no folder for caches")
    found = Library(_digest())
    try:
        functions = _load(folder / f"convolution-{kind()}-{found.digest}.so")
    except (OSError, subprocess.SubprocessError) as error:
        missing = Library("", " ".join(str(error).split()))
        print(f"note: {missing.description}", file=sys.stderr)
        return missing
    for name in FUNCTIONS:
        jax.ffi.register_ffi_target(found.target(name), jax.ffi.pycapsule(functions[f"cnn_jax_{name}"]), platform="cpu")
    return found


def _load(path: pathlib.Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # Not there yet, or damaged.
        _compile(path)
        return ctypes.CDLL(str(path))


def _digest() -> str:
    """Of everything that the machine code depends on, but for the processor."""
    whole = hashlib.sha256(repr((OPTIONS, importlib.metadata.version("jaxlib"))).encode())
    for source in sorted(HERE.glob("*.[ch]*")):
        whole.update(source.read_bytes())
    return whole.hexdigest()[:12]


def _compile(path: pathlib.Path) -> None:
    """Compile the library; a file with its name is whole.

    Raises:
      OSError: no compiler, or no place.
      subprocess.SubprocessError: the compiler fails.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or list(filter(None, map(shutil.which, COMPILERS)))[:1]
    if not compiler:
        raise FileNotFoundError(f"no C++ compiler ({', '.join(COMPILERS)})")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = pathlib.Path(folder, path.name)
        command = [*compiler, *OPTIONS, "-isystem", jax.ffi.include_dir(), "-o", str(made), str(HERE / "handlers.cc")]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no reason given"]
            raise subprocess.SubprocessError(f"{shlex.join(compiler)} fails: {lines[0]}")
        made.replace(path)
