"""The forward steps: each plans one pass over x and runs it on a chunk of the samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whatwhere.ops.cuda.kernels import gates, pooling
from whatwhere.ops.cuda.tiles import Plan, plan, rows

# The number of the first sample of a chunk, and how many there are.
Chunk = tuple[int, int]
# In a part of a sum: where each statistic has what is added up.
SLOTS = ("mean", "max", "std", "l2")


@dataclass(frozen=True)
class Rows:
    """Numbers of every sample: a tensor, how long a sample's row is, where in it they begin."""

    tensor: Tensor
    row: int
    at: int = 0


def arguments(values: Rows | None) -> tuple[Tensor | None, int, int]:
    """Rows as kernels take them."""
    return (None, 0, 0) if values is None else (values.tensor, values.row, values.at)


def places(statistics: Sequence[str], length: int, at: int = 0) -> tuple[int | None, ...]:
    """Where each of ``SLOTS`` lies among descriptors (D, length), None for one absent."""
    return tuple(
        at + statistics.index(name) * length if name in statistics else None for name in SLOTS
    )


def _wanted(statistics: Sequence[str]) -> dict[str, bool]:
    return dict(
        zip(("MEAN", "TOP", "STD", "L2"), (name in statistics for name in SLOTS), strict=True)
    )


def _known(places: Sequence[int | None]) -> list[int]:
    # A place of what is absent is read nowhere.
    return [place or 0 for place in places]


def pool_positions(p: Plan, chunk: Chunk, x: Tensor, out: Rows, statistics: Sequence[str]) -> None:
    """Descriptors (D, C) into ``out``."""
    start, count = chunk
    splits, each = p.shares(p.tiles_c, p.tiles_p)
    if splits == 1 and {"mean", "max"}.issuperset(statistics):
        pool_whole(p, chunk, x, out, statistics)
        return
    parts = parts_of_pooling(p, x, splits)
    run_parts(p, chunk, x, parts, each, statistics)
    pieces, block = rows(p.channels)
    pooling.finish_pooling[(count * pieces,)](
        parts, out.tensor, p.channels, p.positions, pieces, splits, each * p.block_p, start,
        out.row, *_known(places(statistics, p.channels, out.at)),
        **_wanted(statistics), BLOCK=block,
    )  # fmt: skip


def pool_whole(
    p: Plan,
    chunk: Chunk,
    x: Tensor,
    out: Rows,
    statistics: Sequence[str],
    w0: Tensor | None = None,
    hidden: Tensor | None = None,
) -> None:
    """Mean and maximum into ``out``, a program having all positions; with w0 parts of ``hidden``.

    Those are what each tile of channels adds to the hidden units: (N, tiles, 2, units).
    """
    at = _known(places(statistics, p.channels, out.at))
    layout = float(p.positions), out.row, 0, *at
    _pool_positions(p, chunk, x, out.tensor, (1, p.tiles_p), layout, statistics, w0, hidden)


def parts_of_pooling(p: Plan, x: Tensor, splits: int) -> Tensor:
    """Room for parts (N, splits, 4, C)."""
    shape = x.shape[0], splits, len(SLOTS), p.channels
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def run_parts(
    p: Plan, chunk: Chunk, x: Tensor, parts: Tensor, each: int, statistics: Sequence[str]
) -> None:
    """What is added up for the descriptors, of ``each`` tiles of positions a part, into parts."""
    splits, slots, channels = parts.shape[1:]
    at = [slot * channels for slot in range(slots)]
    layout = (1.0, splits * slots * channels, slots * channels, *at)
    _pool_positions(p, chunk, x, parts, (splits, each), layout, statistics)


def _pool_positions(
    p: Plan,
    chunk: Chunk,
    x: Tensor,
    target: Tensor,
    shares: tuple[int, int],
    layout: Sequence[Any],
    statistics: Sequence[str],
    w0: Tensor | None = None,
    hidden: Tensor | None = None,
) -> None:
    start, count = chunk
    if count > 0:
        units = 0 if w0 is None else w0.shape[0]
        pooling.pool_positions[(count * p.tiles_c * shares[0],)](
            x, target, w0, hidden, *p.strides, p.tiles_c, *shares, start, *layout, units,
            **_wanted(statistics), **p.blocks,
        )  # fmt: skip


def pool_channels(
    p: Plan, chunk: Chunk, x: Tensor, gate: Rows | None, out: Rows, statistics: Sequence[str]
) -> None:
    """Descriptors (D, P) of x · gate into ``out``; p is narrow."""
    start, count = chunk
    if count > 0:
        tensor, *gate_at = arguments(gate)
        pooling.pool_channels[(count * p.tiles_p,)](
            x, tensor, out.tensor, *p.strides, p.tiles_p, p.tiles_c, start, *gate_at,
            out.row, *_known(places(statistics, p.positions, out.at)),
            **_wanted(statistics), **p.blocks,
        )  # fmt: skip


def apply_gates(
    x: Tensor,
    channel: Rows | None,
    spatial: Rows | None,
    residual: Tensor | None,
    relu: bool,
    y: Tensor,
) -> None:
    """relu?(x · gates + residual) into y, which may be x."""
    if x.numel() == 0:
        return
    p = plan(x, x.shape[0])
    of_channels, *channel_at = arguments(channel)
    of_positions, *spatial_at = arguments(spatial)
    gates.apply_gates[(p.samples * p.tiles_c * p.tiles_p,)](
        x, of_channels, of_positions, residual, y, *p.strides, p.tiles_c, p.tiles_p,
        *channel_at, *spatial_at, RELU=relu, **p.blocks,
    )  # fmt: skip
