"""What a training step frees on the CPU stays with the process for the next step.

The C library gives large blocks back to the system, which hands them out again page by page, each of them zeroed at
first touch: thousands of pages a step, since every step makes and frees the same tensors.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h: so much may lie free at the heap's end, and from this size on a block is mapped by itself."""
_LARGEST_BLOCK = 32 << 20
"""glibc's own limit of the latter; larger blocks go back to the system as before."""


def keep_freed_memory() -> bool:
    """Ask this process's allocator to keep up to 2 GiB that are freed; False where it cannot be asked (not glibc's)."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK))
