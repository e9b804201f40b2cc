"""Pooling and applying gates on NVIDIA GPUs: the raw functions of ``ops.raw``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from whatwhere.ops.cuda import steps
from whatwhere.ops.cuda.steps import Rows, places
from whatwhere.ops.cuda.tiles import absent, plan
from whatwhere.ops.raw import channel_shape, memory_format, through_relu


def like(x: Tensor) -> Tensor:
    """A tensor without values in the shape, dtype and layout of x."""
    return torch.empty_like(x, memory_format=memory_format(x))


def _gate(gate: Tensor | None) -> Rows | None:
    return None if gate is None else Rows(gate, gate.shape[1])


def _descriptors(x: Tensor, depth: int, length: int) -> Rows:
    out = torch.empty((x.shape[0], depth, length), dtype=torch.float32, device=x.device)
    return Rows(out, depth * length)


def pool_positions(x: Tensor, statistics: Sequence[str]) -> Tensor:
    """As ``raw.pool_positions``."""
    p = plan(x)
    out = _descriptors(x, len(statistics), p.channels)
    steps.pool_positions(p, x, out, statistics)
    return out.tensor


def _maxima(pooled: Tensor, statistics: Sequence[str]) -> Rows | None:
    # Places among the descriptors (D, length) of a sample.
    depth, length = pooled.shape[1:]
    top = places(statistics, length)[1]
    return None if top is None else Rows(pooled.contiguous(), depth * length, top)


def pool_positions_backward(
    grad: Tensor, x: Tensor, pooled: Tensor, statistics: Sequence[str]
) -> Tensor:
    """As ``raw.pool_positions_backward``."""
    p, dx = plan(x), like(x)
    if tuple(statistics) == ("mean",):  # all that x says is its shape
        return dx.copy_((grad / p.positions).reshape(channel_shape(x)))
    swept = steps.sweep(x, None, None, None, descriptors=_maxima(pooled, statistics))
    _, first = steps.finish(None, swept.first_p)
    steps.spread(p, dx, of_descriptors=(grad, first, statistics))
    return dx


def pool_channels(x: Tensor, channel_gate: Tensor | None, statistics: Sequence[str]) -> Tensor:
    """As ``raw.pool_channels``."""
    p = plan(x)
    out = _descriptors(x, len(statistics), p.positions)
    steps.pool_channels(p, x, _gate(channel_gate), out, statistics)
    return out.tensor


def pool_channels_backward(
    grad: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    pooled: Tensor,
    statistics: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """As ``raw.pool_channels_backward``."""
    p, dx, gate = plan(x), like(x), _gate(channel_gate)
    first = x.new_empty((0,), dtype=torch.int32)
    maxima = _maxima(pooled, statistics)
    if maxima is not None:
        swept = steps.sweep(x, None, gate, None, maps=maxima)
        _, first = steps.finish(None, swept.first_c)
    steps.spread(p, dx, channel=gate, of_maps=(grad, first, statistics))
    if gate is None:
        return dx, absent(x)
    shape = p.samples, steps.shares_of_weighted(p)[0], p.channels
    parts = torch.empty(shape, dtype=torch.float32, device=x.device)
    steps.weighted(p, x, grad, first, parts, statistics)
    return dx, steps.finish(parts, None)[0]


def apply_gates(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """As ``raw.apply_gates``."""
    y = like(x)
    steps.apply_gates(plan(x), x, _gate(channel_gate), _gate(spatial_gate), residual, relu, y)
    return y


def apply_gates_(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> None:
    """As ``raw.apply_gates_``."""
    steps.apply_gates(plan(x), x, _gate(channel_gate), _gate(spatial_gate), residual, relu, x)


def apply_gates_backward(
    dy: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    y: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``raw.apply_gates_backward``."""
    dx = like(x)
    swept = steps.sweep(
        x,
        through_relu(dy, y),
        _gate(channel_gate),
        _gate(spatial_gate),
        dx=dx,
        to_channels=channel_gate is not None,
        to_positions=spatial_gate is not None,
    )
    dchannel, dspatial = (
        absent(x) if parts is None else steps.finish(parts, None)[0]
        for parts in (swept.of_channels, swept.of_positions)
    )
    return dx, dchannel, dspatial
