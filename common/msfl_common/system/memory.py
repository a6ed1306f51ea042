"""What the C library does with memory that is freed, where it is glibc."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names of both in glibc's malloc.h
LARGE = 262_144  # bytes; a block of so many is asked of the kernel, and given back, by itself
_LARGE_IN_STEPS = 2**26
_KEPT_IN_STEPS = 2**28
_ROOM_AS_USUAL = 131_072  # glibc's own


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """In the block, memory that is freed stays for what is asked next; after it, the kernel has it back.

    Each step of a training asks for the same tensors again. From the kernel each would come anew, in thousands of
    pages that are cleared first: a third of a step's time on a CPU.
    """
    _set(_LARGE_IN_STEPS, _KEPT_IN_STEPS)
    try:
        yield
    finally:
        _set(LARGE, _ROOM_AS_USUAL)
        trim_memory()


def trim_memory() -> None:
    """Have the C library give back what it keeps of freed memory."""
    with suppress(OSError, AttributeError):
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


def _set(large: int, kept: int) -> None:
    with suppress(OSError, AttributeError):  # another C library decides for itself
        if sys.platform == "linux":
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, large)
            library.mallopt(_TRIM_THRESHOLD, kept)
