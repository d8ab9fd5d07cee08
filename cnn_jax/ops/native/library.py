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
import threading
from collections.abc import Mapping

import jax

from cnn_jax.paths import cache_home
from cnn_jax.processor import kind

FOLDER = "CNN_JAX_NATIVE_CACHE"
"""The environment variable that names the library's folder, by default in the user's cache; empty, there is none."""
HERE = pathlib.Path(__file__).parent
SOURCES = tuple(
    HERE / name for name in ("handlers.cc", "convolution.h", "geometry.h", "kernel_gradient.h", "parallel.h", "tiles.h")
)
"""What is compiled, and what that includes."""
FUNCTIONS = ("convolve", "input_gradient", "kernel_gradient")
COMPILERS = ("c++", "g++", "clang++")
THIS_PROCESSOR = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
OPTIONS = ("-std=c++17", "-O3", THIS_PROCESSOR, "-ffp-contract=fast", "-fPIC", "-shared")
DIGITS = 12
"""Of a digest that are shown."""
SECONDS = 300
"""After which a compiler is given up."""

_one_at_a_time = threading.Lock()


class _NoLibraryError(Exception):
    """Why there is no library, in a line."""


@dataclasses.dataclass(frozen=True)
class Library:
    """What is used.

    Attributes:
      digest: of its machine code; "" where there is none.
      reason: why there is none.
    """

    digest: str
    reason: str = ""

    @property
    def description(self) -> str:
        """A line for people."""
        if self.digest:
            return f"convolutions compiled for this processor: {self.digest}"
        return f"convolutions on a CPU are XLA's, which are slower: {self.reason}"

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
        return pathlib.Path(environment[FOLDER]).absolute() if environment[FOLDER] else None
    home = cache_home(environment)
    return None if home is None else home.absolute() / "native"


def library() -> Library:
    """The library, compiled if it has to be; where that fails, a line on standard error says so, once."""
    with _one_at_a_time:
        return _library()


@functools.cache
def _library() -> Library:
    try:
        return _find()
    except _NoLibraryError as error:
        missing = Library("", str(error))
        if os.environ.get(FOLDER) != "":
            print(f"note: {missing.description}", file=sys.stderr)
        return missing


def _find() -> Library:
    """The library, known to XLA.

    Raises:
      _NoLibraryError: there is none.
    """
    folder = library_folder(os.environ)
    if folder is None:
        raise _NoLibraryError(f"{FOLDER} is empty" if FOLDER in os.environ else "there is no folder for caches")
    path = folder / f"convolution-{kind()}-{_digest_of_sources()}.so"
    try:
        digest = _digest_of_whole(path) or _compile(path)
        functions = ctypes.CDLL(str(path))
        capsules = {name: jax.ffi.pycapsule(functions[f"cnn_jax_{name}"]) for name in FUNCTIONS}
    except OSError as error:
        raise _NoLibraryError(f"{folder}: {error.strerror or 'no library can be loaded from there'}") from None
    except AttributeError:
        raise _NoLibraryError(f"{path} lacks functions; delete it") from None
    found = Library(digest)
    for name, capsule in capsules.items():
        jax.ffi.register_ffi_target(found.target(name), capsule, platform="cpu")
    return found


def _digest_of_sources() -> str:
    """Of everything that the machine code depends on, but for the processor and the compiler's version."""
    asked = OPTIONS, os.environ.get("CXX", ""), importlib.metadata.version("jaxlib")
    whole = hashlib.sha256(repr(asked).encode())
    for source in SOURCES:
        whole.update(source.read_bytes())
    return whole.hexdigest()[:DIGITS]


def _digest_of_whole(path: pathlib.Path) -> str:
    """Of the machine code, if it is there and what was written: a part of it would end the process; "" otherwise."""
    try:
        code, digest = path.read_bytes(), path.with_suffix(".sha256").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return digest[:DIGITS] if hashlib.sha256(code).hexdigest() == digest else ""


def _compile(path: pathlib.Path) -> str:
    """Compile the library, and write its digest beside it, the beginning of which is returned.

    Raises:
      OSError: the folder cannot be written to.
      _NoLibraryError: no compiler, or it fails.
    """
    try:
        compiler = shlex.split(os.environ.get("CXX", "")) or list(filter(None, map(shutil.which, COMPILERS)))[:1]
    except ValueError as error:
        raise _NoLibraryError(f"CXX={os.environ['CXX']!r} is no command: {error}") from None
    if not compiler:
        raise _NoLibraryError(f"no C++ compiler ({', '.join(COMPILERS)}, or the command in CXX)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = pathlib.Path(folder, path.name)
        command = [*compiler, *OPTIONS, "-isystem", jax.ffi.include_dir(), "-o", str(made), str(SOURCES[0])]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise _NoLibraryError(f"{shlex.join(compiler)} takes more than {SECONDS} s") from None
        except OSError as error:
            raise _NoLibraryError(f"{shlex.join(compiler)}: {error.strerror}") from None
        if done.returncode or not made.exists():
            lines = [line for line in done.stderr.splitlines() if "error" in line or "fatal" in line]
            raise _NoLibraryError(f"{shlex.join(compiler)} fails: {(lines or ['without a reason'])[0]}")
        digest, beside = hashlib.sha256(made.read_bytes()).hexdigest(), made.with_suffix(".sha256")
        beside.write_text(digest, encoding="ascii")
        made.replace(path)
        beside.replace(path.with_suffix(".sha256"))
    return digest[:DIGITS]
