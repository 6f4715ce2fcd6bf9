"""Keep freed memory for the next step, instead of returning it to the system."""

import ctypes
import sys

# Constants from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

KEPT = 2**31 - 1  # bytes to keep at the end of the heap; mallopt takes an int


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, because the system spends time on zeroing each new page.

    With another C library, this does nothing.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(M_MMAP_MAX, 0)  # take large tensors from the heap too
    mallopt(M_TRIM_THRESHOLD, KEPT)
