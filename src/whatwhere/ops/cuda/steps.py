"""The steps that operations are made of: each plans one sum over x, runs it, and finishes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whatwhere.ops.cuda.kernels import gates, gradients, pooling
from whatwhere.ops.cuda.tiles import Plan, plan, rows

Split = tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """Numbers of every sample: a tensor, how long a sample's row is, where in it they begin."""

    tensor: Tensor
    row: int
    at: int = 0


def _arguments(values: Rows | None) -> tuple[Tensor | None, int, int]:
    return (None, 0, 0) if values is None else (values.tensor, values.row, values.at)


def places(statistics: Sequence[str], length: int, at: int = 0) -> tuple[int | None, int | None]:
    """Where the mean and the maximum lie among descriptors (D, length), None for one absent."""
    mean, top = (
        at + statistics.index(name) * length if name in statistics else None
        for name in ("mean", "max")
    )
    return mean, top


def _pool(
    p: Plan, x: Tensor, gate: Rows | None, out: Rows, statistics: Sequence[str], by_channel: bool
) -> None:
    # Over positions, for each channel; or over channels, for each position.
    length, count = (p.channels, p.positions) if by_channel else (p.positions, p.channels)
    tiles, steps = (p.tiles_c, p.tiles_p) if by_channel else (p.tiles_p, p.tiles_c)
    splits, each = p.shares(tiles, steps)
    if p.samples == 0:
        return
    mean, top = places(statistics, length, out.at)
    wanted = {"MEAN": mean is not None, "TOP": top is not None}
    at = (mean or 0, top or 0)
    grid = (p.samples * tiles * splits,)
    if splits == 1:
        target, divisor, layout = out.tensor, float(count), (out.row, 0, *at)
    else:
        target = torch.empty((p.samples, splits, 2, length), dtype=torch.float32, device=x.device)
        divisor, layout = 1.0, (splits * 2 * length, 2 * length, 0, length)
    if by_channel:
        pooling.pool_positions[grid](
            x, target, *p.strides, tiles, splits, each, divisor, *layout, **wanted, **p.blocks
        )
    else:
        tensor, gate_row, gate_at = _arguments(gate)
        pooling.pool_channels[grid](
            x, tensor, target, *p.strides, tiles, splits, each, divisor, gate_row, gate_at, *layout,
            **wanted, **p.blocks,
        )  # fmt: skip
    if splits > 1:
        pieces, block = rows(length)
        pooling.finish_pooling[(p.samples * pieces,)](
            target, out.tensor, length, pieces, splits, float(count), out.row, *at,
            **wanted, BLOCK=block,
        )  # fmt: skip


def pool_positions(p: Plan, x: Tensor, out: Rows, statistics: Sequence[str]) -> None:
    """Descriptors (D, C) of every sample into ``out``."""
    _pool(p, x, None, out, statistics, by_channel=True)


def pool_channels(
    p: Plan, x: Tensor, gate: Rows | None, out: Rows, statistics: Sequence[str]
) -> None:
    """Descriptors (D, P) of every sample's x · gate into ``out``."""
    _pool(p, x, gate, out, statistics, by_channel=False)


def apply_gates(
    p: Plan,
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
    of_channels, *channel_at = _arguments(channel)
    of_positions, *spatial_at = _arguments(spatial)
    gates.apply_gates[(p.samples * p.tiles_c * p.tiles_p,)](
        x, of_channels, of_positions, residual, y, *p.strides, p.tiles_c, p.tiles_p,
        *channel_at, *spatial_at, RELU=relu, **p.blocks,
    )  # fmt: skip


@dataclass(frozen=True)
class Sums:
    """What a sweep left: parts of sums and of first places, each (N, parts, length) or None."""

    of_channels: Tensor | None
    of_positions: Tensor | None
    first_p: Tensor | None
    first_c: Tensor | None


def sweep(
    x: Tensor,
    dy: Tensor | None,
    channel: Rows | None,
    spatial: Rows | None,
    *,
    descriptors: Rows | None = None,
    maps: Rows | None = None,
    dx: Tensor | None = None,
    to_channels: bool = False,
    to_positions: bool = False,
    more: int = 0,
) -> Sums:
    """Sums of dy · x that gates get, where maxima first are, and dy · gates into ``dx``.

    ``descriptors`` and ``maps`` are the maxima. ``more`` parts are left free behind those of
    the sums for channels.
    """
    p = plan(x, parts=2)  # what it keeps of an element is twice as much as others keep
    n, channels, positions = p.samples, p.channels, p.positions
    splits, each = p.shares(p.tiles_p, p.tiles_c)
    kept = p.tiles_p + more

    def parts(wanted: bool, count: int, length: int, dtype: torch.dtype) -> Tensor | None:
        return torch.empty((n, count, length), dtype=dtype, device=x.device) if wanted else None

    sums = Sums(
        parts(to_channels, kept, channels, torch.float32),
        parts(to_positions, splits, positions, torch.float32),
        parts(descriptors is not None, p.tiles_p, channels, torch.int32),
        parts(maps is not None, splits, positions, torch.int32),
    )
    if n > 0:
        of_channels, *channel_at = _arguments(channel)
        of_positions, *spatial_at = _arguments(spatial)
        tops, *tops_at = _arguments(descriptors)
        map_tops, *maps_at = _arguments(maps)
        gradients.sweep[(n * p.tiles_p * splits,)](
            x, dy, of_channels, of_positions, tops, map_tops, dx,
            sums.of_channels, sums.of_positions, sums.first_p, sums.first_c,
            *p.strides, p.tiles_p, splits, each, kept,
            *channel_at, *spatial_at, *tops_at, *maps_at, **p.blocks,
        )  # fmt: skip
    return sums


def finish(
    parts: Tensor | None, first: Tensor | None, gate: Rows | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The sum of parts, behind a gate's scale · σ if one is given, and the least place."""
    given = parts if parts is not None else first
    assert given is not None
    n, _, length = given.shape
    out = given.new_empty((n, length) if parts is not None else (0,), dtype=torch.float32)
    least = given.new_empty((n, length) if first is not None else (0,), dtype=torch.int32)
    if n > 0:
        pieces, block = rows(length)
        tensor, gate_row, gate_at = _arguments(gate)
        counts = (1 if one is None else one.shape[1] for one in (parts, first))
        gradients.finish_sums[(n * pieces,)](
            parts, first, tensor, out, least, length, pieces, *counts, scale, gate_row, gate_at,
            BLOCK=block,
        )  # fmt: skip
    return out, least


def shares_of_weighted(p: Plan) -> Split:
    """Into how many parts ``weighted`` cuts the positions, and the tiles of each."""
    return p.shares(p.tiles_c, p.tiles_p)


def weighted(
    p: Plan, x: Tensor, dmaps: Tensor, first: Tensor, parts: Tensor, statistics: Sequence[str]
) -> None:
    """What the gate's product with x gives the gate, into the last of ``parts`` (N, parts, C)."""
    if p.samples == 0:
        return
    splits, each = shares_of_weighted(p)
    gradients.weighted[(p.samples * p.tiles_c * splits,)](
        x, dmaps, first, parts, *p.strides, p.tiles_c, splits, each,
        len(statistics) * p.positions, parts.shape[1], parts.shape[1] - splits,
        *places(statistics, p.positions), **p.blocks,
    )  # fmt: skip


def spread(
    p: Plan,
    dx: Tensor,
    *,
    dy: Tensor | None = None,
    channel: Rows | None = None,
    spatial: Rows | None = None,
    of_maps: tuple[Tensor, Tensor, Sequence[str]] | None = None,
    of_descriptors: tuple[Tensor, Tensor, Sequence[str]] | None = None,
) -> None:
    """Write dx: what of dy, of the maps and of the descriptors is given, with places of maxima."""
    if dx.numel() == 0:
        return
    of_channels, *channel_at = _arguments(channel)
    of_positions, *spatial_at = _arguments(spatial)
    dmaps, first_c, spatial_statistics = of_maps if of_maps is not None else (None, None, ())
    ddescriptors, first_p, statistics = (
        of_descriptors if of_descriptors is not None else (None, None, ())
    )
    gradients.spread[(p.samples * p.tiles_c * p.tiles_p,)](
        dy, of_channels, of_positions, dmaps, first_c, ddescriptors, first_p, dx,
        *p.strides, p.tiles_c, p.tiles_p, *channel_at, *spatial_at,
        len(spatial_statistics) * p.positions, len(statistics) * p.channels,
        *places(spatial_statistics, p.positions), *places(statistics, p.channels), **p.blocks,
    )  # fmt: skip
