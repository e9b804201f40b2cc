"""The raw operations by the specification alone: what runs where no faster kernel does.

Their signatures are flat and without defaults, as ``torch.library`` wants them, and the same as
those of the fast kernels. N is the batch, C the channels, P all positions, D the statistics;
gates and descriptors are in the accumulation dtype. An absent tensor among the outputs is of
shape (0,). Gradients are torch's own of the specification, never written by hand.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from whatwhere.ops import reference
from whatwhere.ops.reference import ActivationName, Statistic, accumulation_dtype

_KEY, _KEY_SET = torch._C.DispatchKey, torch._C.DispatchKeySet
_NO_AUTOCAST = _KEY_SET(_KEY.AutocastCPU) | _KEY_SET(_KEY.AutocastCUDA)
_EAGER = _KEY_SET(_KEY.BackendSelect) | _KEY_SET(_KEY.ADInplaceOrView)


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout of what is like x: channels_last where x is that alone, else contiguous."""
    if x.is_contiguous():
        return torch.contiguous_format
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    if x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format


def _like(value: Tensor, x: Tensor) -> Tensor:
    # A fresh tensor: an operator's output may not be one of its inputs, or a view of one.
    return value.clone(memory_format=memory_format(x))


def _absent(x: Tensor) -> Tensor:
    return x.new_empty((0,), dtype=accumulation_dtype(x.dtype))


def channel_shape(x: Tensor) -> tuple[int, ...]:
    """The shape (N, C, 1, ...) in which a channel gate broadcasts against x."""
    return (x.shape[0], x.shape[1], *(1,) * (x.ndim - 2))


def spatial_shape(x: Tensor) -> tuple[int, ...]:
    """The shape (N, 1, *positions) in which a spatial gate broadcasts against x."""
    return (x.shape[0], 1, *x.shape[2:])


def _gradients(
    function: Callable[..., Tensor], primals: Sequence[Tensor | None], cotangent: Tensor
) -> list[Tensor | None]:
    """The gradient of ``function`` at each primal, None where that is None."""
    # The body of an operator runs below autograd, and perhaps inside a mode: with the dispatch
    # keys of plain eager code, autograd is there again.
    with torch._C._ForceDispatchKeyGuard(_EAGER, _NO_AUTOCAST), torch.enable_grad():
        leaves = [None if p is None else p.detach().requires_grad_() for p in primals]
        output = function(*leaves)
        given = [leaf for leaf in leaves if leaf is not None]
        gradients = iter(torch.autograd.grad(output, given, cotangent))
    return [None if leaf is None else next(gradients) for leaf in leaves]


def pool_positions(x: Tensor, statistics: Sequence[Statistic]) -> Tensor:
    """Descriptors (N, D, C) of x over its positions."""
    descriptors = reference.pool_positions(x, statistics=statistics)
    return torch.stack([descriptor.flatten(1) for descriptor in descriptors], 1)


def pool_positions_backward(
    grad: Tensor, x: Tensor, _pooled: Tensor, statistics: Sequence[Statistic]
) -> Tensor:
    """The gradient of x, like x, from that of the descriptors."""
    [dx] = _gradients(lambda x: pool_positions(x, statistics), [x], grad)
    assert dx is not None
    return _like(dx, x)


def pool_channels(
    x: Tensor, channel_gate: Tensor | None, statistics: Sequence[Statistic]
) -> Tensor:
    """Descriptors (N, D, P) of x · channel_gate over its channels."""
    gate = None if channel_gate is None else channel_gate.reshape(channel_shape(x))
    maps = reference.pool_channels(x, statistics=statistics, channel_gate=gate)
    return torch.cat(maps, 1).flatten(2)


def pool_channels_backward(
    grad: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    _pooled: Tensor,
    statistics: Sequence[Statistic],
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of channel_gate from that of the descriptors."""

    def function(x: Tensor, gate: Tensor | None) -> Tensor:
        return pool_channels(x, gate, statistics)

    dx, dgate = _gradients(function, [x, channel_gate], grad)
    assert dx is not None
    return _like(dx, x), _absent(x) if dgate is None else dgate.contiguous()


def apply_gates(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """relu?(x · gates + residual), like x."""
    gates = []
    if channel_gate is not None:
        gates.append(channel_gate.reshape(channel_shape(x)))
    if spatial_gate is not None:
        gates.append(spatial_gate.reshape(spatial_shape(x)))
    return _like(reference.apply_gates(x, gates=gates, residual=residual, relu=relu), x)


def apply_gates_(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> None:
    """``apply_gates`` into x."""
    x.copy_(apply_gates(x, channel_gate, spatial_gate, residual, relu))


def apply_gates_backward(
    dy: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    y: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and of the gates; y is given where there was a ReLU."""
    dy = through_relu(dy, y)

    def function(x: Tensor, channel: Tensor | None, spatial: Tensor | None) -> Tensor:
        return apply_gates(x, channel, spatial, None, False)

    dx, *dgates = _gradients(function, [x, channel_gate, spatial_gate], dy)
    assert dx is not None
    dchannel, dspatial = (_absent(x) if d is None else d.contiguous() for d in dgates)
    return _like(dx, x), dchannel, dspatial


def through_relu(dy: Tensor, y: Tensor | None) -> Tensor:
    """The gradient before the ReLU that made y, as torch has it: also a NaN lets it pass."""
    # What differentiates torch's own ReLU: masked_fill loses the layout, and takes 20 times longer.
    return dy if y is None else torch.ops.aten.threshold_backward.default(dy, y.detach(), 0)


def activation_of(scale: float) -> ActivationName:
    """The gate activation scale · σ by its name."""
    return "sigmoid" if scale == 1.0 else "double_sigmoid"


def cbam(
    x: Tensor,
    w0: Tensor,
    b0: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    wc: Tensor,
    bc: Tensor | None,
    channel_statistics: Sequence[Statistic],
    spatial_statistics: Sequence[Statistic],
    channel_scale: float,
    spatial_scale: float,
    residual: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Channel, then spatial attention: y like x, and what the backward needs of it, (N, K).

    A row of that holds, of one sample: descriptors (Dc, C), hidden units before the ReLU
    (Dc, hidden), channel gate (C), maps (Ds, P) and spatial gate (P).
    """
    dtype = accumulation_dtype(x.dtype)
    w0, w1, wc = w0.to(dtype), w1.to(dtype), wc.to(dtype)
    b0, b1, bc = (None if bias is None else bias.to(dtype) for bias in (b0, b1, bc))
    n, positions = x.shape[0], x.shape[2:]
    with reference.without_autocast(x):
        descriptors = pool_positions(x, channel_statistics)
        hidden = torch.nn.functional.linear(descriptors, w0, b0)
        logits = reference.two_layers(descriptors.unbind(1), w0, b0, w1, b1)
        channel_gate = reference.activate(logits, activation_of(channel_scale))
        maps = pool_channels(x, channel_gate, spatial_statistics)
        padding = tuple(size // 2 for size in wc.shape[2:])
        convolve = reference.CONVOLVE[x.ndim - 2]
        planes = maps.reshape(n, len(spatial_statistics), *positions)
        spatial = convolve(planes, wc, bc, padding=padding).flatten(1)
        spatial_gate = reference.activate(spatial, activation_of(spatial_scale))
        y = apply_gates(x, channel_gate, spatial_gate, residual, relu)
    rows = (descriptors, hidden, channel_gate, maps, spatial_gate)
    return y, torch.cat([row.flatten(1) for row in rows], 1)


def cbam_(x: Tensor, *arguments: Any) -> None:
    """``cbam`` into x."""
    x.copy_(cbam(x, *arguments)[0])


def cbam_backward(
    dy: Tensor,
    x: Tensor,
    _saved: Tensor,
    w0: Tensor,
    b0: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    wc: Tensor,
    bc: Tensor | None,
    channel_statistics: Sequence[Statistic],
    spatial_statistics: Sequence[Statistic],
    channel_scale: float,
    spatial_scale: float,
    y: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, w0, b0, w1, b1, wc, bc, and, where y is given, of the residual."""
    before = through_relu(dy, y)

    def function(*primals: Any) -> Tensor:
        options = (channel_statistics, spatial_statistics, channel_scale, spatial_scale)
        arguments = (*primals, *options, None, False)
        return cbam(*arguments)[0]

    parameters = (w0, b0, w1, b1, wc, bc)
    dx, *rest = _gradients(function, [x, *parameters], before)
    assert dx is not None
    gradients = [_absent(x) if d is None else d.contiguous() for d in rest]
    dresidual = _absent(x) if y is None else _like(before, x)
    dw0, db0, dw1, db1, dwc, dbc = gradients
    return _like(dx, x), dw0, db0, dw1, db1, dwc, dbc, dresidual
