"""Memory of one step kept for the next, instead of given back to the system and taken again."""

import ctypes
import sys

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

KEPT = 2**31 - 1  # bytes at the end of the heap; an int is all that mallopt takes


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: the system fills each new page with zeros, which takes time.

    Elsewhere, nothing changes.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(M_MMAP_MAX, 0)  # large tensors come from the heap, too
    mallopt(M_TRIM_THRESHOLD, KEPT)
