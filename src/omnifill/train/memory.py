"""Memory that a training step frees and the next one needs again."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of glibc's mallopt (malloc.h)."""
USUAL = {M_TRIM_THRESHOLD: 128 << 10, M_MMAP_MAX: 65536}
"""What they are before anybody sets them."""


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed, instead of having the kernel zero the same pages in every
    step: a seventh of a step's time on two cores (docs/log.md). Elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library
        options = ctypes.CDLL(None).mallopt
        options(M_MMAP_MAX, 0)
        options(M_TRIM_THRESHOLD, 1 << 30)


def give_back_freed_memory() -> None:
    """What steps freed goes back to the system, for whatever comes after them."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in USUAL.items():
            library.mallopt(option, value)
        library.malloc_trim(0)
