"""Pooling and applying gates on NVIDIA GPUs: the raw functions of ``ops.raw``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from whatwhere.ops.cuda import gradients, steps
from whatwhere.ops.cuda.gradients import Pooled, sums_of
from whatwhere.ops.cuda.steps import Chunk, Rows, places
from whatwhere.ops.cuda.tiles import Plan, absent, plan
from whatwhere.ops.raw import channel_shape, memory_format

# Statistics whose gradients take x again.
DEVIATIONS = ("std", "l2")


def like(x: Tensor) -> Tensor:
    """A tensor without values in the shape, dtype and layout of x."""
    return torch.empty_like(x, memory_format=memory_format(x))


def _plan(x: Tensor, statistics: Sequence[str], *, narrow: bool = False) -> Plan:
    # Deviations take more registers an element, so there are fewer elements.
    parts = 2 if set(DEVIATIONS) & set(statistics) else 1
    return plan(x, x.shape[0], parts=parts, narrow=narrow)


def _gate(gate: Tensor | None) -> Rows | None:
    return None if gate is None else Rows(gate, gate.shape[1])


def _all(x: Tensor) -> Chunk:
    return 0, x.shape[0]


def _descriptors(x: Tensor, depth: int, length: int) -> Rows:
    out = torch.empty((x.shape[0], depth, length), dtype=torch.float32, device=x.device)
    return Rows(out, depth * length)


def pool_positions(x: Tensor, statistics: Sequence[str]) -> Tensor:
    """As ``raw.pool_positions``."""
    p = _plan(x, statistics)
    out = _descriptors(x, len(statistics), p.channels)
    steps.pool_positions(p, _all(x), x, out, statistics)
    return out.tensor


def pool_channels(x: Tensor, channel_gate: Tensor | None, statistics: Sequence[str]) -> Tensor:
    """As ``raw.pool_channels``."""
    p = _plan(x, statistics, narrow=True)
    out = _descriptors(x, len(statistics), p.positions)
    steps.pool_channels(p, _all(x), x, _gate(channel_gate), out, statistics)
    return out.tensor


def _maxima(pooled: Tensor, statistics: Sequence[str]) -> Rows | None:
    # Places among the descriptors (D, length) of a sample.
    depth, length = pooled.shape[1:]
    top = places(statistics, length)[1]
    return None if top is None else Rows(pooled, depth * length, top)


def _pooled(
    grad: Tensor,
    first: Tensor | None,
    pooled: Tensor,
    statistics: Sequence[str],
    means: Tensor | None,
) -> Pooled:
    """What the gradients of descriptors (N, D, length) take; ``means`` where they have none."""
    depth, length = pooled.shape[1:]
    values = pooled if set(DEVIATIONS) & set(statistics) else None
    if "std" not in statistics:
        of = None
    elif means is not None:
        of = Rows(means, length)
    else:
        of = Rows(pooled, depth * length, statistics.index("mean") * length)
    place = grad.new_empty((0,), dtype=torch.int32) if first is None else first
    return Pooled(grad, place, statistics, values, of)


def _lacks_means(statistics: Sequence[str]) -> bool:
    return "std" in statistics and "mean" not in statistics


def pool_positions_backward(
    grad: Tensor, x: Tensor, pooled: Tensor, statistics: Sequence[str]
) -> Tensor:
    """As ``raw.pool_positions_backward``."""
    dx, chunk, pooled = like(x), _all(x), pooled.contiguous()
    p = _plan(x, statistics)
    if tuple(statistics) == ("mean",):  # all that x says is its shape
        return dx.copy_((grad / p.positions).reshape(channel_shape(x)))
    maxima, first = _maxima(pooled, statistics), None
    if maxima is not None:
        swept = plan(x, x.shape[0], parts=2, narrow=True)
        sums = sums_of(swept, x, channels=0, positions=False, first_p=True, first_c=False)
        gradients.sweep(swept, chunk, x, None, sums, descriptors=maxima)
        first = torch.empty((x.shape[0], p.channels), dtype=torch.int32, device=x.device)
        gradients.finish(chunk, None, sums.first_p, None, first)
    means = pool_positions(x, ["mean"]) if _lacks_means(statistics) else None
    of = _pooled(grad, first, pooled, statistics, means)
    gradients.spread(p, chunk, dx, x=None if of.values is None else x, descriptors=of)
    return dx


def pool_channels_backward(
    grad: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    pooled: Tensor,
    statistics: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """As ``raw.pool_channels_backward``."""
    dx, chunk, gate, pooled = like(x), _all(x), _gate(channel_gate), pooled.contiguous()
    p = _plan(x, statistics)
    maxima, first = _maxima(pooled, statistics), None
    if maxima is not None:
        swept = plan(x, x.shape[0], parts=2, narrow=True)
        sums = sums_of(swept, x, channels=0, positions=False, first_p=False, first_c=True)
        gradients.sweep(swept, chunk, x, None, sums, channel=gate, maps=maxima)
        first = sums.first_c
    means = pool_channels(x, channel_gate, ["mean"]) if _lacks_means(statistics) else None
    of = _pooled(grad, first, pooled, statistics, means)
    gradients.spread(p, chunk, dx, x=None if of.values is None else x, channel=gate, maps=of)
    if gate is None:
        return dx, absent(x)
    parts = p.shares(p.tiles_c, p.tiles_p)[0]
    sums = sums_of(p, x, channels=parts, positions=False, first_p=False, first_c=False)
    assert sums.of_channels is not None
    gradients.weighted(p, chunk, x, gate, of, sums.of_channels)
    dgate = torch.empty_like(gate.tensor)
    gradients.finish(chunk, sums.of_channels, None, dgate, None)
    return dx, dgate


def apply_gates(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """As ``raw.apply_gates``."""
    y = like(x)
    steps.apply_gates(x, _gate(channel_gate), _gate(spatial_gate), residual, relu, y)
    return y


def apply_gates_(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> None:
    """As ``raw.apply_gates_``."""
    steps.apply_gates(x, _gate(channel_gate), _gate(spatial_gate), residual, relu, x)


def apply_gates_backward(
    dy: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    y: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``raw.apply_gates_backward``."""
    dx, chunk = like(x), _all(x)
    p = plan(x, x.shape[0], parts=2, narrow=True)
    sums = sums_of(
        p, x, channels=0 if channel_gate is None else p.tiles_p,
        positions=spatial_gate is not None, first_p=False, first_c=False,
    )  # fmt: skip
    gradients.sweep(
        p, chunk, x, dy, sums,
        y=y, channel=_gate(channel_gate), spatial=_gate(spatial_gate), dx=dx,
    )  # fmt: skip
    dchannel = absent(x) if channel_gate is None else torch.empty_like(channel_gate)
    gradients.finish(chunk, sums.of_channels, None, dchannel, None)
    return dx, dchannel, absent(x) if sums.of_positions is None else sums.of_positions
