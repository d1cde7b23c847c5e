"""Memory that one step frees and the next one needs again, kept by the process in between.

When much of its heap is free, glibc hands the end of it back to the system, and every page that is taken again costs a
fault: a step of BLIP-2's stage 1 at paper size took 130,000 of them, and fewer than 10,000 in kept memory.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""`mallopt`'s names for: how much may lie free before it is given back, and from which size blocks are mapped apart."""
LARGEST, USUAL_TRIM = 32 * 2**20, 64 * 2**20
"""What glibc itself comes to in a process that frees large blocks."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within it the heap does not shrink; after it, it does. Blocks above 32 MiB are the system's affair as ever.

    Without glibc nothing happens.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, LARGEST)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(TRIM_THRESHOLD, USUAL_TRIM)
        libc.malloc_trim(0)
