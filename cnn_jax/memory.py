"""Keep freed memory in the process: XLA's CPU backend allocates and frees the memory of every step anew."""

import ctypes
import os
import sys
from collections.abc import Mapping

# malloc.h and sys/mman.h of Linux.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
MADV_HUGEPAGE = 14
HUGE_PAGE = 2 * 2**20
LARGEST_HEAP = 8 * 2**30


def keep_freed_memory(environment: Mapping[str, str]) -> bool:
    """Let glibc's malloc keep what is freed, in huge pages; call it before JAX is imported.

    By default glibc gives large blocks back to the system at once. The next step gets them as fresh pages, each of
    which the system clears at its first use; on a virtual machine a large part of a step's processor time goes there.
    The price is that the process stays as large as it once was.

    Args:
      environment: a `GLIBC_TUNABLES` or `MALLOC_...` variable in it says that the user has own settings.

    Returns:
      Whether it was done: not where those settings are, and not where the C library is another one.
    """
    if sys.platform != "linux" or any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in environment):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # One arena, because those of other threads cannot grow beyond 64 MiB; no blocks outside of it; nothing given back.
    for option, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 * 2**20)):
        library.mallopt(option, value)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # Address space only: a page is taken when it is first written to.
    size = min(LARGEST_HEAP, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    block = library.malloc(size)
    if block is not None:
        start = -(-block // HUGE_PAGE) * HUGE_PAGE
        library.madvise(start, size - HUGE_PAGE, MADV_HUGEPAGE)  # a refusal costs speed alone
        library.free(block)
    return True
