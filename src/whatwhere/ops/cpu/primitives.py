"""Pooling and applying gates on the CPU: what memory they need, and in which steps kernels run.

A sample is a matrix: (C, P) in planes, (P, C) in pixels. Samples are shared out where there are few
of them. The bits are the same whoever computes what: sums that cross shares are taken over tiles
that only the shape decides, and added in one order.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.native import kernel
from whatwhere.ops.cpu.threads import run, thread_count

# Positions of a tile in the backward passes: the maps' parts, or the sums', stay in cache.
PLANE_TILE, PIXEL_TILE = 1024, 512
# Bytes of x that a second pass is to find in cache.
NEAR = 2**19
# Elements that are worth a thread.
GRAIN = 2**15


@dataclass(frozen=True)
class Plan:
    """All that follows from shape, dtype and statistics alone."""

    samples: int
    channels: int
    positions: int
    depth: int
    wide: torch.dtype
    dtype: torch.dtype
    by_pixel: bool
    tiles: int
    threads: int  # as many as are worth it
    scratch: int  # length of one thread's scratch
    template: "array[int]"


@lru_cache(maxsize=512)
def _plan(
    shape: tuple[int, ...], dtype: torch.dtype, by_pixel: bool, statistics: tuple[str, ...]
) -> Plan:
    samples, channels, *space = shape
    positions = math.prod(space)
    a = array("q", bytes(8 * A.LENGTH))
    a[A.SAMPLES], a[A.BY_PIXEL], a[A.DEPTH] = samples, by_pixel, len(statistics)
    a[A.ROWS], a[A.COLUMNS] = (positions, channels) if by_pixel else (channels, positions)
    for place, name in zip((A.MEAN, A.TOP, A.STD, A.L2), ("mean", "max", "std", "l2"), strict=True):
        a[place] = statistics.index(name) if name in statistics else -1
    pooled = channels * dtype.itemsize
    a[A.TILE] = min(2048, max(16, NEAR // pooled // 16 * 16))
    return Plan(
        samples=samples,
        channels=channels,
        positions=positions,
        depth=len(statistics),
        wide=torch.promote_types(dtype, torch.float32),
        dtype=dtype,
        by_pixel=by_pixel,
        tiles=-(-positions // (PIXEL_TILE if by_pixel else PLANE_TILE)),
        threads=1 + samples * channels * positions // GRAIN,
        scratch=5 * max(channels, positions),
        template=a,
    )


def _plan_of(x: Tensor, statistics: Sequence[str]) -> Plan:
    return _plan(tuple(x.shape), x.dtype, not x.is_contiguous(), tuple(statistics))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _shares(p: Plan, threads: int) -> int:
    return 1 if threads == 1 else max(1, -(-4 * threads // max(p.samples, 1)))


def _run(p: Plan, name: str, a: "array[int]") -> None:
    """Run a kernel in one phase."""
    threads = min(thread_count(), p.threads)
    scratch = torch.empty(threads * p.scratch, dtype=p.wide)
    a[A.SCRATCH], a[A.SCRATCH_LENGTH] = scratch.data_ptr(), p.scratch
    shares = _shares(p, threads)
    a[A.TILES] = shares
    run(kernel(name, p.dtype), a, threads, A.TILE_BY_TILE, p.samples * shares, shares)


def _run_tiles(p: Plan, name: str, a: "array[int]", total: Tensor, place: int) -> None:
    """Run a kernel tile by tile, and add up what the tiles leave of ``total`` (N, C)."""
    threads = min(thread_count(), p.threads)
    scratch = torch.empty(threads * p.scratch, dtype=p.wide)
    parts = total
    if p.tiles > 1:
        parts = torch.empty(p.samples * p.tiles * p.channels, dtype=p.wide)
    a[A.SCRATCH], a[A.SCRATCH_LENGTH] = scratch.data_ptr(), p.scratch
    a[A.TILES], a[A.PARTS], a[place] = p.tiles, parts.data_ptr(), total.data_ptr()
    code, shares = kernel(name, p.dtype), min(_shares(p, threads), p.tiles)
    if shares == 1 and p.tiles > 1:
        run(code, a, threads, A.TILE_BY_TILE | A.TOGETHER, p.samples, 1)
        return
    run(code, a, threads, A.TILE_BY_TILE, p.samples * shares, shares)
    if p.tiles > 1:
        run(code, a, threads, A.TOGETHER, p.samples, 1)


def pool_positions(x: Tensor, statistics: Sequence[str]) -> Tensor:
    """As ``raw.pool_positions``."""
    p = _plan_of(x, statistics)
    a = p.template[:]
    pooled = torch.empty((p.samples, p.depth, p.channels), dtype=p.wide)
    a[A.X], a[A.POOLED] = x.data_ptr(), pooled.data_ptr()
    _run(p, "pool_positions_pixels" if p.by_pixel else "pool_positions_planes", a)
    return pooled


def pool_positions_backward(
    grad: Tensor, x: Tensor, pooled: Tensor, statistics: Sequence[str]
) -> Tensor:
    """As ``raw.pool_positions_backward``."""
    p = _plan_of(x, statistics)
    dx = torch.empty_like(x)
    if tuple(statistics) == ("mean",):
        return dx.copy_((grad / p.positions).reshape(p.samples, p.channels, *(1,) * (x.ndim - 2)))
    means = _means(statistics, pooled, lambda: pool_positions(x, ("mean",)))
    a = p.template[:]
    a[A.X], a[A.DX] = x.data_ptr(), dx.data_ptr()
    _set_descriptors(a, grad, pooled, means)
    _run(p, "pool_columns_backward" if p.by_pixel else "pool_rows_backward", a)
    return dx
