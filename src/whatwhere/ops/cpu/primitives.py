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
from whatwhere.ops.cpu.fallback import or_by_specification
from whatwhere.ops.cpu.native import kernel
from whatwhere.ops.cpu.outputs import LINE, empty_like, goes_past
from whatwhere.ops.cpu.threads import run, thread_count
from whatwhere.ops.raw import channel_shape

# Where what is summed across tiles is kept per column, a tile is so many rows at least, and of so
# many elements; where it is kept per row, so many columns.
TILE_ROWS, TILE_ELEMENTS, TILE_COLUMNS = 32, 2**16, 1024
# Positions of a tile of ``pool_channels``; bytes of x that a second pass is to find in cache.
LARGEST_TILE, NEAR = 2048, 2**19
# Elements that are worth a thread.
GRAIN = 2**15


@dataclass(frozen=True)
class Plan:
    """All that follows from shape, dtype and statistics alone."""

    samples: int
    channels: int
    positions: int
    depth: int
    dtype: torch.dtype
    wide: torch.dtype
    by_pixel: bool
    row_tiles: int
    column_tiles: int
    threads: int  # as many as are worth it
    scratch: int  # length of one thread's scratch
    past: bool  # the caches, where addresses allow it
    template: "array[int]"


@lru_cache(maxsize=512)
def _plan(
    shape: tuple[int, ...], dtype: torch.dtype, by_pixel: bool, statistics: tuple[str, ...]
) -> Plan:
    samples, channels, *space = shape
    positions = math.prod(space)
    a = array("q", bytes(8 * A.LENGTH))
    a[A.SAMPLES], a[A.DEPTH] = samples, len(statistics)
    a[A.ROWS], a[A.COLUMNS] = (positions, channels) if by_pixel else (channels, positions)
    for place, name in zip((A.MEAN, A.TOP, A.STD, A.L2), ("mean", "max", "std", "l2"), strict=True):
        a[place] = statistics.index(name) if name in statistics else -1
    a[A.TILE] = LARGEST_TILE
    if not {"mean", "max"}.issuperset(statistics):
        near = NEAR // (channels * dtype.itemsize) // 16 * 16
        a[A.TILE] = min(LARGEST_TILE, max(16, near))
    return Plan(
        samples=samples,
        channels=channels,
        positions=positions,
        depth=len(statistics),
        dtype=dtype,
        wide=torch.promote_types(dtype, torch.float32),
        by_pixel=by_pixel,
        row_tiles=max(1, a[A.ROWS] // max(TILE_ROWS, TILE_ELEMENTS // max(a[A.COLUMNS], 1))),
        column_tiles=-(-a[A.COLUMNS] // TILE_COLUMNS),
        threads=1 + samples * channels * positions // GRAIN,
        scratch=6 * max(channels, positions),
        past=goes_past(a[A.COLUMNS], samples * channels * positions, dtype),
        template=a,
    )


def _plan_of(x: Tensor, statistics: Sequence[str]) -> Plan:
    return _plan(tuple(x.shape), x.dtype, not x.is_contiguous(), tuple(statistics))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _run(
    p: Plan, name: str, a: "array[int]", sums: Tensor | None = None, by_row: bool = True
) -> None:
    """Run a kernel; what is summed across tiles of rows, or of columns, goes to ``sums``."""
    threads = min(thread_count(), p.threads)
    shares = 1 if threads == 1 else max(1, -(-4 * threads // max(p.samples, 1)))
    scratch = torch.empty(threads * p.scratch, dtype=p.wide)
    a[A.SCRATCH], a[A.SCRATCH_LENGTH] = scratch.data_ptr(), p.scratch
    code = kernel(name, p.dtype)
    if sums is None:
        a[A.TILES] = shares
        run(code, a, threads, A.TILE_BY_TILE, p.samples * shares, shares)
        return
    tiles = p.row_tiles if by_row else p.column_tiles
    shares = min(shares, tiles)
    parts = torch.empty(tiles * sums.numel(), dtype=p.wide) if tiles > 1 else sums
    a[A.TILES], a[A.PARTS] = tiles, parts.data_ptr()
    a[A.DCOLUMN if by_row else A.DROW] = sums.data_ptr()
    if tiles == 1:
        run(code, a, threads, A.TILE_BY_TILE, p.samples, 1)
    elif shares == 1:
        run(code, a, threads, A.TILE_BY_TILE | A.TOGETHER, p.samples, 1)
    else:
        run(code, a, threads, A.TILE_BY_TILE, p.samples * shares, shares)
        run(code, a, threads, A.TOGETHER, p.samples, 1)


def _set_gates(
    p: Plan, a: "array[int]", channel_gate: Tensor | None, spatial_gate: Tensor | None
) -> None:
    rows, columns = channel_gate, spatial_gate
    if p.by_pixel:
        rows, columns = columns, rows
    a[A.ROW_GATE], a[A.COLUMN_GATE] = _address(rows), _address(columns)


def pool_positions(x: Tensor, statistics: Sequence[str]) -> Tensor:
    """As ``raw.pool_positions``."""
    p = _plan_of(x, statistics)
    a = p.template[:]
    pooled = torch.empty((p.samples, p.depth, p.channels), dtype=p.wide)
    a[A.X], a[A.POOLED] = x.data_ptr(), pooled.data_ptr()
    _run(p, "pool_positions_pixels" if p.by_pixel else "pool_positions_planes", a)
    return pooled


@or_by_specification
def pool_positions_backward(
    grad: Tensor, x: Tensor, pooled: Tensor, statistics: Sequence[str]
) -> Tensor:
    """As ``raw.pool_positions_backward``."""
    p = _plan_of(x, statistics)
    dx = empty_like(x)
    if tuple(statistics) == ("mean",):
        # All that x says is its shape.
        return dx.copy_((grad / p.positions).reshape(channel_shape(x)))
    a = p.template[:]
    a[A.X], a[A.DX] = x.data_ptr(), dx.data_ptr()
    pooled = pooled.contiguous()
    a[A.POOLED], a[A.DPOOLED] = pooled.data_ptr(), grad.data_ptr()
    _run(p, "pool_columns_backward" if p.by_pixel else "pool_rows_backward", a)
    return dx


def pool_channels(x: Tensor, channel_gate: Tensor | None, statistics: Sequence[str]) -> Tensor:
    """As ``raw.pool_channels``."""
    p = _plan_of(x, statistics)
    a = p.template[:]
    pooled = torch.empty((p.samples, p.depth, p.positions), dtype=p.wide)
    a[A.X], a[A.POOLED] = x.data_ptr(), pooled.data_ptr()
    _set_gates(p, a, channel_gate, None)
    _run(p, "pool_channels_pixels" if p.by_pixel else "pool_channels_planes", a)
    return pooled


@or_by_specification
def pool_channels_backward(
    grad: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    pooled: Tensor,
    statistics: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """As ``raw.pool_channels_backward``."""
    p = _plan_of(x, statistics)
    a = p.template[:]
    dx = empty_like(x)
    a[A.X], a[A.DX] = x.data_ptr(), dx.data_ptr()
    pooled = pooled.contiguous()
    a[A.POOLED], a[A.DPOOLED] = pooled.data_ptr(), grad.data_ptr()
    _set_gates(p, a, channel_gate, None)
    dgate = None if channel_gate is None else torch.empty_like(channel_gate)
    _run(p, "pool_rows_backward" if p.by_pixel else "pool_columns_backward", a, dgate, p.by_pixel)
    return dx, grad.new_empty(0) if dgate is None else dgate


def apply_gates(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """As ``raw.apply_gates``; ``out`` is memory for y, which may be that of x."""
    p = _plan_of(x, ())
    a = p.template[:]
    y = empty_like(x) if out is None else out
    a[A.X], a[A.Y], a[A.RESIDUAL] = x.data_ptr(), y.data_ptr(), _address(residual)
    a[A.RELU] = relu
    a[A.PAST] = p.past and y is not x and a[A.Y] % LINE == 0
    _set_gates(p, a, channel_gate, spatial_gate)
    _run(p, "apply_gates", a)
    return y


def apply_gates_(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> None:
    """As ``raw.apply_gates_``."""
    apply_gates(x, channel_gate, spatial_gate, residual, relu, out=x)


@or_by_specification
def apply_gates_backward(
    dy: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    y: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``raw.apply_gates_backward``."""
    p = _plan_of(x, ())
    a = p.template[:]
    dx = empty_like(x)
    dchannel = None if channel_gate is None else torch.empty_like(channel_gate)
    dspatial = None if spatial_gate is None else torch.empty_like(spatial_gate)
    rows, columns = (dspatial, dchannel) if p.by_pixel else (dchannel, dspatial)
    a[A.X], a[A.Y], a[A.RESIDUAL] = x.data_ptr(), dy.data_ptr(), _address(y)
    a[A.DX], a[A.DROW] = dx.data_ptr(), _address(rows)
    _set_gates(p, a, channel_gate, spatial_gate)
    _run(p, "apply_gates_backward", a, columns)
    return (
        dx,
        torch.empty(0, dtype=p.wide) if dchannel is None else dchannel,
        torch.empty(0, dtype=p.wide) if dspatial is None else dspatial,
    )
