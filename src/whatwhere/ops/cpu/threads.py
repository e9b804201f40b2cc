"""Running a kernel on several threads: those of torch, so that there is one pool, not two.

A kernel takes its pieces of work from a counter that all threads share, so it is right with any
number of them, and one call of OpenMP's entry point, GOMP_parallel, is all that is needed. It is
the symbol that torch itself calls: on Linux from the libgomp or libiomp5 that torch brings. Numba's
own parallel layer is not used, which spares its second pool, its abort after a fork and its abort
without libgomp. Where the symbol is missing, a pool of Python threads does the same; kernels run
without the interpreter's lock.
"""

import ctypes
import os
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.native import Kernel

# A forked child has none of its parent's threads, and waiting for them would take forever.
_forked = False


def _after_fork() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """How many threads a kernel may use: torch's number, and 1 in a forked process."""
    return 1 if _forked else torch.get_num_threads()


@cache
def openmp() -> Any | None:
    """OpenMP's entry point in this process, or None."""
    try:
        entry = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    entry.restype = None
    return entry


@cache
def _python_threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="whatwhere")


def run(
    kernel: tuple[int, Kernel],
    arguments: "array[int]",
    threads: int,
    phases: int,
    pieces: int,
    shares: int,
) -> None:
    """Run phases of a kernel on so many pieces of work, ``shares`` of them to a sample."""
    arguments[A.COUNTER] = 0
    arguments[A.SCRATCH_TAKEN] = 0
    arguments[A.PHASES] = phases
    arguments[A.PIECES] = pieces
    arguments[A.SHARES] = shares
    address, function = kernel
    place, _ = arguments.buffer_info()
    count = min(threads, pieces)
    if count <= 1:
        function(place)
        return
    entry = openmp()
    if entry is not None:
        entry(address, place, count, 0)
        return
    others = [_python_threads(count - 1).submit(function, place) for _ in range(count - 1)]
    function(place)
    for other in others:
        other.result()
