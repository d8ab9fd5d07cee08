"""What processor this is, as far as the system tells it."""

import functools
import pathlib
import platform
import zlib

INFORMATION = pathlib.Path("/proc/cpuinfo")
INSTRUCTIONS = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve")
"""How the names of vector instructions begin, among a processor's abilities."""


@functools.cache
def _lines() -> tuple[str, ...]:
    if not INFORMATION.exists():
        return ()
    return tuple(INFORMATION.read_text(encoding="utf-8", errors="replace").splitlines())


def processor() -> str:
    """The processor's name."""
    for line in _lines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _abilities() -> str | None:
    return next((line.partition(":")[2] for line in _lines() if line.startswith(("flags", "Features"))), None)


def instructions() -> str:
    """The processor's vector instructions, or the kind of machine where they are not told."""
    abilities = _abilities()
    if abilities is None:
        return platform.machine()
    return " ".join(sorted(name for name in abilities.split() if name.startswith(INSTRUCTIONS)))


def kind() -> str:
    """A name for the kind of processor, for folders of machine code: a home may be shared, but not that."""
    return f"{platform.machine()}-{zlib.crc32((_abilities() or processor()).encode()):08x}"
