"""Memory for results: large pages, where the system gives them to those who ask, and the caches.

A large result is memory that the process has not touched, and the system hands that out page by
page while a kernel writes: in pages of 4 KiB this takes longer than the kernel. On Linux a process
may ask for pages of 2 MiB (``madvise``; allowed unless an administrator forbade it), which costs a
fifth. Only pages that lie in the result as a whole are asked for, so none of it is wasted.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from whatwhere.ops.raw import memory_format

PAGE = 2 * 1024 * 1024
# Bytes of a vector, and of what a cache holds as one.
LINE = 64
# From <sys/mman.h> of Linux.
MADV_HUGEPAGE = 14


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        advise = ctypes.CDLL(None).madvise
    except (AttributeError, OSError):
        return None
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise


@cache
def last_cache() -> int:
    """Bytes of the last cache that a core reads from; where the system doesn't say, 32 MiB."""
    largest = 0
    for place in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = place.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            largest = max(largest, int(text[:-1]) * 1024)
    return largest if largest > 0 else 32 * 1024 * 1024


def goes_past(row: int, elements: int, dtype: torch.dtype) -> bool:
    """Whether a result of rows of so many elements is to be written past the caches.

    It is if it would leave them before it is read again: ordinary stores read a line before they
    overwrite it. Its rows are then whole vectors.
    """
    size = dtype.itemsize
    return size >= 4 and row * size % LINE == 0 and elements * size >= last_cache() // 2


def empty_like(x: Tensor) -> Tensor:
    """A tensor without values in the shape, dtype and layout of x."""
    # By the layout, not by x's strides, which tell nothing where an axis has one element or none.
    return torch.empty_like(x, memory_format=memory_format(x))


def large_like(x: Tensor) -> Tensor:
    """The same in large pages, for inference: for what is soon freed, and soon wanted again.

    Between the steps of a training a virtual machine's host may take free large pages away, and
    giving them back then takes it longer than many small ones.
    """
    y = empty_like(x)
    size = y.nbytes
    if size >= PAGE:
        advise = _advise()
        if advise is not None:
            start = y.data_ptr()
            first = -(-start // PAGE) * PAGE
            whole = (start + size - first) // PAGE * PAGE
            if whole > 0:
                advise(first, whole, MADV_HUGEPAGE)
    return y
