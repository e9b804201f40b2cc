"""The backward steps: what sums of x and dy are wanted, and what writes dx, chunk by chunk."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whatwhere.ops.cuda.kernels import gradients
from whatwhere.ops.cuda.steps import Chunk, Rows, arguments, places
from whatwhere.ops.cuda.tiles import Plan

# Rows and columns of a tile of parts that are added up.
PARTS, SUMS = 32, 64


@dataclass(frozen=True)
class Sums:
    """What a sweep leaves, each None where it is not wanted.

    Parts of the gradient of the channel gate (N, kept, C), that of the spatial gate (N, P), and the
    first places of maxima, over positions in parts (N, tiles, C), over channels (N, P).
    """

    of_channels: Tensor | None
    of_positions: Tensor | None
    first_p: Tensor | None
    first_c: Tensor | None


def sums_of(
    p: Plan, x: Tensor, *, channels: int, positions: bool, first_p: bool, first_c: bool
) -> Sums:
    """Room for what a sweep with the plan leaves; ``channels`` are parts, 0 for none."""
    n = x.shape[0]

    def room(wanted: bool, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        return torch.empty((n, *shape), dtype=dtype, device=x.device) if wanted else None

    return Sums(
        room(channels > 0, (channels, p.channels), torch.float32),
        room(positions, (p.positions,), torch.float32),
        room(first_p, (p.tiles_p, p.channels), torch.int32),
        room(first_c, (p.positions,), torch.int32),
    )


def sweep(
    p: Plan,
    chunk: Chunk,
    x: Tensor,
    dy: Tensor | None,
    sums: Sums,
    *,
    y: Tensor | None = None,
    channel: Rows | None = None,
    spatial: Rows | None = None,
    descriptors: Rows | None = None,
    maps: Rows | None = None,
    before: Tensor | None = None,
    dx: Tensor | None = None,
    scale: float | None = None,
) -> None:
    """Fill ``sums``, ``before`` and ``dx``; ``descriptors`` and ``maps`` are the maxima.

    With a scale ``of_positions`` is the gradient before the spatial gate's scale · σ.
    """
    start, count = chunk
    if count == 0:
        return
    of_channels, *channel_at = arguments(channel)
    of_positions, *spatial_at = arguments(spatial)
    tops, *tops_at = arguments(descriptors)
    map_tops, *maps_at = arguments(maps)
    kept = 0 if sums.of_channels is None else sums.of_channels.shape[1]
    gradients.sweep[(count * p.tiles_p,)](
        x, dy, y, of_channels, of_positions, tops, map_tops,
        before, dx, sums.of_channels, sums.of_positions, sums.first_p, sums.first_c,
        *p.strides, p.tiles_p, p.tiles_c, kept, start, 1.0 if scale is None else scale,
        *channel_at, *spatial_at, *tops_at, *maps_at, LOGITS=scale is not None, **p.blocks,
    )  # fmt: skip


def finish(
    chunk: Chunk,
    parts: Tensor | None,
    first: Tensor | None,
    out: Tensor | None,
    least: Tensor | None,
    *,
    gate: Rows | None = None,
    scale: float = 1.0,
) -> None:
    """The sum of parts into ``out``, behind a gate's scale · σ if one is given, and the least."""
    start, count = chunk
    given = parts if parts is not None else first
    if count == 0 or given is None:
        return
    length = given.shape[2]
    tensor, *gate_at = arguments(gate)
    splits = (0 if one is None else one.shape[1] for one in (parts, first))
    pieces = -(-length // SUMS)
    gradients.finish_sums[(count * pieces,)](
        parts, first, tensor, out, least, length, pieces, *splits, start, scale, *gate_at,
        BS=PARTS, BLOCK=SUMS,
    )  # fmt: skip


@dataclass(frozen=True)
class Pooled:
    """Gradients of statistics (N, D, length), and what of the statistics they need.

    Places of maxima (N, length); for std and l2 the statistics and for std the means, else None.
    """

    grad: Tensor
    first: Tensor
    statistics: Sequence[str]
    values: Tensor | None = None
    means: Rows | None = None

    @property
    def row(self) -> int:
        """The numbers of a sample."""
        return self.grad.shape[1] * self.grad.shape[2]


def weighted(
    p: Plan, chunk: Chunk, x: Tensor, gate: Rows | None, of: Pooled, parts: Tensor
) -> None:
    """What the gate's product with x gives the gate, into the last of ``parts`` (N, parts, C)."""
    start, count = chunk
    if count == 0:
        return
    splits, each = p.shares(p.tiles_c, p.tiles_p)
    tensor, *gate_at = arguments(gate if of.values is not None else None)
    means, *means_at = arguments(of.means)
    gradients.weighted[(count * p.tiles_c * splits,)](
        x, tensor, of.grad, of.first, of.values, means, parts,
        *p.strides, p.tiles_c, splits, each, start, *gate_at, of.row, *means_at,
        parts.shape[1], parts.shape[1] - splits,
        *places(of.statistics, p.positions), **p.blocks,
    )  # fmt: skip


def spread(
    p: Plan,
    chunk: Chunk,
    dx: Tensor,
    *,
    x: Tensor | None = None,
    dy: Tensor | None = None,
    channel: Rows | None = None,
    spatial: Rows | None = None,
    maps: Pooled | None = None,
    descriptors: Pooled | None = None,
) -> None:
    """Write dx: what of dy, of the maps and of the descriptors is given; x where those need it."""
    start, count = chunk
    if count == 0:
        return
    of_channels, *channel_at = arguments(channel)
    of_positions, *spatial_at = arguments(spatial)
    tensors: list[Tensor | None] = []
    numbers: list[int | None] = []
    for of, length in ((maps, p.positions), (descriptors, p.channels)):
        if of is None:
            tensors += [None] * 4
            numbers += [0, 0, 0, *places((), length)]
        else:
            means, *means_at = arguments(of.means)
            tensors += [of.grad, of.first, of.values, means]
            numbers += [of.row, *means_at, *places(of.statistics, length)]
    gradients.spread[(count * p.tiles_c * p.tiles_p,)](
        x, dy, of_channels, of_positions, *tensors, dx, *p.strides, p.tiles_c, p.tiles_p, start,
        *channel_at, *spatial_at, *numbers, **p.blocks,
    )  # fmt: skip
