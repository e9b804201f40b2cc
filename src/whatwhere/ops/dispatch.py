"""The public operations: each checks its arguments and runs where ``routing`` says."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from whatwhere.checks import check_feature_map
from whatwhere.ops import reference
from whatwhere.ops.arguments import (
    RANKS,
    check_finish,
    check_parameters,
    checked_gate,
    checked_statistics,
    scale_of,
)
from whatwhere.ops.raw import channel_shape, spatial_shape
from whatwhere.ops.reference import ActivationName, Statistic
from whatwhere.ops.repeated import remember, run_again, signature
from whatwhere.ops.routing import route


def pool_positions(x: Tensor, *, statistics: Sequence[Statistic]) -> tuple[Tensor, ...]:
    """Summarise x over all its positions: one descriptor per statistic, defined as in ``pool``.

    Args:
        x: (N, C, L), (N, C, H, W) or (N, C, T, H, W).
        statistics: any of "mean", "max", "std", "l2", in any order.

    Returns:
        Descriptors (N, C, 1, ...) in the order given, in ``accumulation_dtype(x.dtype)``.

    Raises:
        ValueError: from x of another rank or with an empty axis, or from bad statistics.

    >>> pool_positions(torch.tensor([[[1.0, 5.0], [2.0, 0.0]]]), statistics=["max"])
    (tensor([[[5.],
             [2.]]]),)
    """
    chosen = checked_statistics("pool_positions", x, statistics)
    call = route("pool_positions", x, chosen)
    if call is None:
        return reference.pool_positions(x, statistics=chosen)
    pooled = call("pool_positions", x, chosen)
    shape = channel_shape(x)
    return tuple(descriptor.view(shape) for descriptor in pooled.unbind(1))


def pool_channels(
    x: Tensor, *, statistics: Sequence[Statistic], channel_gate: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Summarise x · channel_gate over its channels, without writing that product anywhere.

    Args:
        x: (N, C, L), (N, C, H, W) or (N, C, T, H, W).
        statistics: as for ``pool_positions``.
        channel_gate: (N, C, 1, ...), or None for x alone.

    Returns:
        Descriptors (N, 1, *positions) in the order given, in ``accumulation_dtype(x.dtype)``.

    Raises:
        ValueError: as for ``pool_positions``, or from a gate of another shape.

    >>> pool_channels(torch.tensor([[[1.0, 5.0], [2.0, 0.0]]]), statistics=["mean"])
    (tensor([[[1.5000, 2.5000]]]),)
    """
    chosen = checked_statistics("pool_channels", x, statistics)
    if channel_gate is not None:
        channel_gate = checked_gate(
            "pool_channels", "channel_gate", channel_gate, x, channel_shape(x)
        )
    call = route("pool_channels", x, chosen, channel_gate)
    if call is None:
        return reference.pool_channels(x, statistics=chosen, channel_gate=channel_gate)
    rows = None if channel_gate is None else channel_gate.reshape(x.shape[:2])
    pooled = call("pool_channels", x, rows, chosen)
    shape = spatial_shape(x)
    return tuple(descriptor.view(shape) for descriptor in pooled.unbind(1))


def pool_frames(x: Tensor, *, statistics: Sequence[Statistic]) -> tuple[Tensor, ...]:
    """Summarise every frame of x over all it has: the first position axis is kept.

    Args:
        x: (N, C, L) or (N, C, T, H, W).
        statistics: as for ``pool_positions``.

    Returns:
        Descriptors (N, 1, L) or (N, 1, T, 1, 1), in ``accumulation_dtype(x.dtype)``.

    Raises:
        ValueError: as for ``pool_positions``.

    >>> pool_frames(torch.ones(2, 4, 3, 5, 5), statistics=["mean"])[0].shape
    torch.Size([2, 1, 3, 1, 1])
    """
    check_feature_map("pool_frames", x, (3, 5))
    if x.ndim == 3:
        return pool_channels(x, statistics=statistics)
    chosen = checked_statistics("pool_frames", x, statistics)
    call = route("pool_positions", x, chosen)
    if call is None or not {"mean", "max"}.issuperset(chosen):
        return reference.pool_frames(x, statistics=chosen)
    # Every frame of every channel first, then over channels: so the first maximum of a frame is
    # still the first in row-major order. Frames move next to N where channels come last.
    n, channels, frames = x.shape[:3]
    if x.is_contiguous():
        planes = x.reshape(n, channels * frames, *x.shape[3:])
        rows = call("pool_positions", planes, chosen).unflatten(2, (channels, frames))
    else:
        planes = x.transpose(1, 2).reshape(n * frames, channels, *x.shape[3:])
        rows = call("pool_positions", planes, chosen).unflatten(0, (n, frames)).permute(0, 2, 3, 1)
    shape = (n, 1, frames, 1, 1)
    return tuple(
        reference.pool(row, [1], [statistic])[0].reshape(shape)
        for row, statistic in zip(rows.unbind(1), chosen, strict=True)
    )


def apply_gates(
    x: Tensor,
    *,
    channel_gate: Tensor | None = None,
    spatial_gate: Tensor | None = None,
    temporal_gate: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Literal["relu"] | None = None,
    inplace: bool = False,
) -> Tensor:
    """y = relu?(x · channel_gate · spatial_gate · temporal_gate + residual), in one pass.

    Args:
        x: (N, C, L), (N, C, H, W) or (N, C, T, H, W).
        channel_gate: (N, C, 1, ...).
        spatial_gate: (N, 1, *positions).
        temporal_gate: (N, 1, T, 1, 1) or (N, 1, L).
        residual: what is added, of the shape and dtype of x.
        activation: "relu" for one at the end.
        inplace: whether y overwrites x; only where no gradient is recorded.

    Returns:
        y in the dtype of x; computed in ``accumulation_dtype(x.dtype)`` and rounded once.

    Raises:
        ValueError: from a tensor of another shape, or from ``inplace`` where autograd records.

    >>> x = torch.ones(1, 2, 3)
    >>> apply_gates(x, channel_gate=torch.tensor([[[0.5], [1.0]]]), residual=x)
    tensor([[[1.5000, 1.5000, 1.5000],
             [2.0000, 2.0000, 2.0000]]])
    """
    check_feature_map("apply_gates", x, RANKS)
    relu = check_finish("apply_gates", x, residual, activation, inplace)
    if channel_gate is not None:
        channel_gate = checked_gate(
            "apply_gates", "channel_gate", channel_gate, x, channel_shape(x)
        )
    if spatial_gate is not None:
        spatial_gate = checked_gate(
            "apply_gates", "spatial_gate", spatial_gate, x, spatial_shape(x)
        )
    if temporal_gate is not None:
        shape = (x.shape[0], 1, x.shape[2], *(1,) * (x.ndim - 3))
        temporal_gate = checked_gate("apply_gates", "temporal_gate", temporal_gate, x, shape)
    call = route("apply_gates", x, (), channel_gate, spatial_gate, temporal_gate, residual)
    if call is None:
        gates = [g for g in (channel_gate, spatial_gate, temporal_gate) if g is not None]
        y = reference.apply_gates(x, gates=gates, residual=residual, relu=relu)
        return x.copy_(y) if inplace else y
    if temporal_gate is not None:  # a map like any other, 1/C of the size of x
        one = torch.ones_like(temporal_gate) if spatial_gate is None else spatial_gate
        spatial_gate = (one * temporal_gate).expand(spatial_shape(x))
    channels = None if channel_gate is None else channel_gate.reshape(x.shape[:2])
    positions = None if spatial_gate is None else spatial_gate.flatten(1)
    if inplace:
        call("apply_gates_", x, channels, positions, residual, relu)
        return x
    output: Tensor = call("apply_gates", x, channels, positions, residual, relu)
    return output


def cbam(
    x: Tensor,
    *,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None = None,
    expand_weight: Tensor,
    expand_bias: Tensor | None = None,
    conv_weight: Tensor,
    conv_bias: Tensor | None = None,
    channel_statistics: Sequence[Statistic] = ("mean", "max"),
    spatial_statistics: Sequence[Statistic] = ("mean", "max"),
    channel_activation: ActivationName = "sigmoid",
    spatial_activation: ActivationName = "sigmoid",
    residual: Tensor | None = None,
    activation: Literal["relu"] | None = None,
    inplace: bool = False,
) -> Tensor:
    """Channel, then spatial attention in one operation that keeps x and small tensors alone.

    g = act(Σ_d W1 ReLU(W0 d + b0) + b1), over the descriptors d of x, b1 once for each;
    s = act(conv(descriptors over channels of x · g) + bias); y = relu?(x · g · s + residual).
    Source: CBAM (arXiv 1807.06521), equations 1 to 3.

    Args:
        x: (N, C, L), (N, C, H, W) or (N, C, T, H, W).
        reduce_weight: W0, (hidden, C); ``reduce_bias``: b0, (hidden,).
        expand_weight: W1, (C, hidden); ``expand_bias``: b1, (C,).
        conv_weight: (1, D, *K) for D spatial statistics and odd K; ``conv_bias``: (1,). Zero
            padding keeps the size.
        channel_statistics: d in any order, as for ``pool_positions``.
        spatial_statistics: the input channels of the convolution.
        channel_activation: "sigmoid" or "double_sigmoid", of g.
        spatial_activation: the same, of s.
        residual: what is added, of the shape and dtype of x.
        activation: "relu" for one at the end.
        inplace: whether y overwrites x; only where no gradient is recorded.

    Returns:
        y in the dtype of x; computed in ``accumulation_dtype(x.dtype)`` and rounded once.

    Raises:
        ValueError: from a tensor of another shape, or from ``inplace`` where autograd records.

    >>> x, w0, w1 = torch.ones(1, 4, 3, 3), torch.ones(2, 4), torch.zeros(4, 2)
    >>> cbam(x, reduce_weight=w0, expand_weight=w1, conv_weight=torch.zeros(1, 2, 3, 3)).unique()
    tensor([0.2500])
    """
    parameters = (
        reduce_weight,
        reduce_bias,
        expand_weight,
        expand_bias,
        conv_weight,
        conv_bias,
    )
    options = (
        tuple(channel_statistics),
        tuple(spatial_statistics),
        channel_activation,
        spatial_activation,
        activation,
        inplace,
    )
    sign = signature(x, residual, parameters, options)
    if sign is not None:
        again = run_again(sign, x, residual, parameters, activation is not None, inplace)
        if again is not None:
            return again
    channel = checked_statistics("cbam", x, channel_statistics)
    spatial = checked_statistics("cbam", x, spatial_statistics)
    relu = check_finish("cbam", x, residual, activation, inplace)
    scale = scale_of("channel_activation", channel_activation)
    spatial_scale = scale_of("spatial_activation", spatial_activation)
    check_parameters(x, parameters, len(spatial))
    call = route("cbam", x, (*channel, *spatial), *parameters, residual)
    if call is None:
        y = reference.cbam(
            x,
            *parameters,
            channel_statistics=channel,
            spatial_statistics=spatial,
            channel_activation=channel_activation,
            spatial_activation=spatial_activation,
            residual=residual,
            relu=relu,
        )[0]
        return x.copy_(y) if inplace else y
    arguments = (*parameters, channel, spatial, scale, spatial_scale, residual, relu)
    if sign is not None:
        remember(sign, x, arguments)
    if inplace:
        call("cbam_", x, *arguments)
        return x
    output: Tensor = call("cbam", x, *arguments)[0]
    return output
