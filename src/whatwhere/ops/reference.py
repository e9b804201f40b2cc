"""The specification: every public operation in plain, differentiable PyTorch."""

from collections.abc import Sequence
from contextlib import nullcontext
from math import prod
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Statistic = Literal["mean", "max", "std", "l2"]
ActivationName = Literal["sigmoid", "double_sigmoid", "identity"]

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
ACTIVATIONS: tuple[ActivationName, ...] = get_args(ActivationName)
EPSILON = 1e-5  # under the root of "std" and "l2", as both sources have it
CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over values of ``dtype`` run: at least float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def pool(x: Tensor, axes: Sequence[int], statistics: Sequence[Statistic]) -> tuple[Tensor, ...]:
    """Summarise x over some of its axes, one descriptor per statistic.

    Over the P elements of the pooled axes: mean = (1/P) Σ x_p; max = max_p x_p;
    std = √(var + 1e-5) with var = Σ (x_p - mean)² / (P - 1), which is 0 for P = 1, as in SRM
    (arXiv 1903.10829, hyunjaelee410/style-based-recalibration-module@f6221c7);
    l2 = √(Σ x_p² + 1e-5), as in GCT (CVPR 2020, z-x-yang/GCT@68983ed).

    Args:
        x: floating-point tensor.
        axes: the axes to pool, which stay as size 1.
        statistics: any of "mean", "max", "std", "l2", in any order.

    Returns:
        One tensor per statistic in the order given, in ``accumulation_dtype(x.dtype)``.

    Raises:
        ValueError: the pooled axes hold no element.

    >>> x = torch.tensor([[[1.0, 5.0], [2.0, 0.0]]])                      # (N, C, L) = (1, 2, 2)
    >>> pool(x, axes=[2], statistics=["mean", "max"])
    (tensor([[[3.], [1.]]]), tensor([[[5.], [2.]]]))
    """
    if any(x.shape[axis] == 0 for axis in axes):
        raise ValueError(
            f"pool: expected at least one element on each pooled axis {tuple(axes)}, "
            f"got x of shape {tuple(x.shape)}"
        )
    return tuple(_summary(x, tuple(axes), statistic) for statistic in statistics)


def _summary(x: Tensor, axes: tuple[int, ...], statistic: Statistic) -> Tensor:
    dtype = accumulation_dtype(x.dtype)
    if statistic == "mean":
        return x.mean(dim=axes, keepdim=True, dtype=dtype)
    if statistic == "max":
        return _first_maximum(x, axes).to(dtype)
    x = x.to(dtype)
    if statistic == "l2":
        return (x.square().sum(dim=axes, keepdim=True) + EPSILON).sqrt()
    # Not x.var: it is NaN over one element, and warns of an empty batch.
    deviation = x - x.mean(dim=axes, keepdim=True)
    variance = deviation.square().sum(dim=axes, keepdim=True) / degrees_of_freedom(x, axes)
    root: Tensor = (variance + EPSILON).sqrt()
    return root


def degrees_of_freedom(x: Tensor, axes: Sequence[int]) -> Any:
    """The elements along axes but one, at least 1; symbolic where sizes are."""
    degrees = prod([x.shape[axis] for axis in axes]) - 1
    # Python's max would fix a symbolic size; torch 2.11 doesn't compile sym_max of plain integers.
    return max(degrees, 1) if isinstance(degrees, int) else torch.sym_max(degrees, 1)


def _first_maximum(x: Tensor, axes: Sequence[int]) -> Tensor:
    # max(dim) gives its gradient to the first maximum; amax would split it between equal ones.
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.permute(*kept, *axes).flatten(start_dim=len(kept))
    shape = [1 if axis in axes else x.shape[axis] for axis in range(x.ndim)]
    return rows.max(dim=-1).values.reshape(shape)


def activate(logits: Tensor, activation: ActivationName) -> Tensor:
    """Squash logits to a gate: σ(z) in (0, 1), 2σ(z) in (0, 2), or z itself.

    2σ is the gate that starts a network unchanged, since 2σ(0) = 1.

    >>> activate(torch.zeros(1), "double_sigmoid")
    tensor([1.])
    """
    if activation == "sigmoid":
        return logits.sigmoid()
    if activation == "double_sigmoid":
        return 2 * logits.sigmoid()
    return logits


def apply_gate(x: Tensor, gate: Tensor) -> Tensor:
    """Multiply x by a gate that broadcasts against it; the result has the dtype of x.

    >>> apply_gate(torch.ones(1, 2, 2), torch.tensor([[[0.5], [1.0]]]))
    tensor([[[0.5000, 0.5000], [1.0000, 1.0000]]])
    """
    return x * gate.to(x.dtype)


def pool_positions(x: Tensor, *, statistics: Sequence[Statistic]) -> tuple[Tensor, ...]:
    """Descriptors of x over all its positions, each (N, C, 1, ...)."""
    return pool(x, range(2, x.ndim), statistics)


def pool_channels(
    x: Tensor, *, statistics: Sequence[Statistic], channel_gate: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Descriptors of x · channel_gate over its channels, each (N, 1, *positions)."""
    if channel_gate is not None:
        x = x.to(accumulation_dtype(x.dtype)) * channel_gate
    return pool(x, [1], statistics)


def pool_frames(x: Tensor, *, statistics: Sequence[Statistic]) -> tuple[Tensor, ...]:
    """Descriptors of x over all but N and its first position axis, each (N, 1, T, ...)."""
    return pool(x, [1, *range(3, x.ndim)], statistics)


def apply_gates(
    x: Tensor,
    *,
    gates: Sequence[Tensor],
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """relu?(x · gates + residual), computed in the accumulation dtype and rounded once to x's."""
    dtype = accumulation_dtype(x.dtype)
    y = x.to(dtype)
    for gate in gates:
        y = y * gate.to(dtype)
    if residual is not None:
        y = y + residual.to(dtype)
    if relu:
        y = y.relu()
    return y.to(x.dtype)


def two_layers(
    descriptors: Sequence[Tensor], w0: Tensor, b0: Tensor | None, w1: Tensor, b1: Tensor | None
) -> Tensor:
    """Logits of the shared network: Σ_d W1 ReLU(W0 d + b0) + b1, b1 once for each descriptor.

    Descriptors have one axis longer than 1 besides N; the result has their shape.
    """
    rows = [descriptor.flatten(1) for descriptor in descriptors]
    logits = [F.linear(F.relu(F.linear(row, w0, b0)), w1, b1) for row in rows]
    return torch.stack(logits).sum(0).reshape(descriptors[0].shape)


def cbam(
    x: Tensor,
    w0: Tensor,
    b0: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    wc: Tensor,
    bc: Tensor | None,
    *,
    channel_statistics: Sequence[Statistic],
    spatial_statistics: Sequence[Statistic],
    channel_activation: ActivationName,
    spatial_activation: ActivationName,
    residual: Tensor | None = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Channel, then spatial attention of x: see ``whatwhere.ops.cbam`` for the equation.

    Returns y and the two gates, (N, C, 1, ...) and (N, 1, *positions), before any rounding.
    """
    dtype = accumulation_dtype(x.dtype)
    w0, w1, wc = w0.to(dtype), w1.to(dtype), wc.to(dtype)
    b0, b1, bc = (None if bias is None else bias.to(dtype) for bias in (b0, b1, bc))
    with without_autocast(x):
        descriptors = pool_positions(x, statistics=channel_statistics)
        channel_gate = activate(two_layers(descriptors, w0, b0, w1, b1), channel_activation)
        maps = pool_channels(x, statistics=spatial_statistics, channel_gate=channel_gate)
        padding = tuple(size // 2 for size in wc.shape[2:])
        logits = CONVOLVE[x.ndim - 2](torch.cat(maps, 1), wc, bc, padding=padding)
        spatial_gate = activate(logits, spatial_activation)
        gates = (channel_gate, spatial_gate)
        return apply_gates(x, gates=gates, residual=residual, relu=relu), *gates


def without_autocast(x: Tensor) -> torch.autocast | nullcontext[None]:
    """A context in which arithmetic on x keeps its dtype."""
    # Entered only where autocast is on: an idle context would still be a node in exported graphs.
    if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
