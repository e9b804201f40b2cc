"""The operations on the CPU by compiled kernels: the raw functions of ``ops.raw``, faster.

``threads`` runs the kernels on torch's threads, ``native`` compiles, keeps and loads them, ``cbam``
and ``primitives`` plan memory and steps, ``fallback`` serves gradients without a kernel. Only
``kernels`` imports Numba, and is imported only to compile.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from whatwhere.ops import raw
from whatwhere.ops.cpu.cbam import Plan, backward, forward, plan
from whatwhere.ops.cpu.fallback import or_by_specification
from whatwhere.ops.cpu.native import SUPPORTED, KernelError, kernel, trouble
from whatwhere.ops.cpu.outputs import empty_like, large_like
from whatwhere.ops.cpu.primitives import (
    apply_gates,
    apply_gates_,
    apply_gates_backward,
    pool_channels,
    pool_channels_backward,
    pool_positions,
    pool_positions_backward,
)
from whatwhere.ops.raw import memory_format

__all__ = [
    "apply_gates",
    "apply_gates_",
    "apply_gates_backward",
    "cbam",
    "cbam_",
    "cbam_backward",
    "pool_channels",
    "pool_channels_backward",
    "pool_positions",
    "pool_positions_backward",
    "unsupported",
]

# By operation and by whether x is stored in planes: what must be there for it to be served.
KERNELS = {
    ("cbam", True): "forward_planes",
    ("cbam", False): "forward_pixels",
    ("pool_positions", True): "pool_positions_planes",
    ("pool_positions", False): "pool_positions_pixels",
    ("pool_channels", True): "pool_channels_planes",
    ("pool_channels", False): "pool_channels_pixels",
    ("apply_gates", True): "apply_gates",
    ("apply_gates", False): "apply_gates",
}

# Kernels keep the index of a maximum as a float32.
LARGEST_INDEX = 2**24
# The place among the parameters whose strides kernels take as they are.
CONV = 4

_reasons: dict[tuple[str, torch.dtype, bool], str | None] = {}


def unsupported(op: str, x: Tensor, statistics: Sequence[str]) -> str | None:
    """Why kernels can't serve an operation on x, or None. The first call loads or compiles them."""
    # Other strides than these two layouts' are copied to be contiguous before a kernel runs.
    case = op, x.dtype, x.is_contiguous() or memory_format(x) is torch.contiguous_format
    if case not in _reasons:
        _reasons[case] = _reason(*case)
    reason = _reasons[case]
    if reason is not None:
        return reason
    if x.numel() >= LARGEST_INDEX and max(x.shape[1], x[0, 0].numel()) >= LARGEST_INDEX:
        return f"x has an axis of {LARGEST_INDEX} elements or more"
    if op == "cbam" and not {"mean", "max"}.issuperset(statistics):
        return f"kernels have no {sorted(set(statistics) - {'mean', 'max'})} in this operation"
    return None


def _reason(op: str, dtype: torch.dtype, by_plane: bool) -> str | None:
    if trouble() is not None:
        return trouble()
    if dtype not in SUPPORTED:
        return f"x has the dtype {dtype}"
    try:
        kernel(KERNELS[op, by_plane], dtype)
    except KernelError as error:
        return str(error)
    return None


def _plan(x: Tensor, w0: Tensor, wc: Tensor, options: Sequence[Any]) -> Plan:
    channel_statistics, spatial_statistics, channel_scale, spatial_scale = options
    return plan(
        tuple(x.shape),
        tuple(wc.shape[2:]),
        w0.shape[0],
        (tuple(channel_statistics), tuple(spatial_statistics)),
        (channel_scale, spatial_scale),
        x.dtype,
        not x.is_contiguous(),
    )


def _wide(p: Plan, weights: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [w if w is None or w.dtype is p.wide else w.to(p.wide) for w in weights]


def cbam(x: Tensor, *arguments: Any, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As ``raw.cbam``; ``out`` is memory for y, which may be that of x."""
    weights, options, (residual, relu) = arguments[:6], arguments[6:10], arguments[10:]
    y = empty_like(x) if out is None else out
    p = _plan(x, weights[0], weights[4], options)
    saved = torch.empty((p.samples, p.saved), dtype=p.wide)
    forward(p, x, _wide(p, weights), residual, relu, y, saved)
    return y, saved


def cbam_(x: Tensor, *arguments: Any) -> None:
    """As ``raw.cbam_``."""
    cbam(x, *arguments, out=x)


def plan_again(x: Tensor, *arguments: Any) -> Plan | None:
    """What ``cbam_again`` needs for such x and arguments; None if any is copied or converted."""
    weights, options, residual = arguments[:6], arguments[6:10], arguments[10]
    if unsupported("cbam", x, (*options[0], *options[1])) is not None:
        return None
    layout = memory_format(x)
    if not x.is_contiguous(memory_format=layout):
        return None
    if residual is not None and not residual.is_contiguous(memory_format=layout):
        return None
    p = _plan(x, weights[0], weights[4], options)
    for place, weight in enumerate(weights):
        if weight is None:
            continue
        if weight.dtype is not p.wide or not (place == CONV or weight.is_contiguous()):
            return None
    return p


def cbam_again(
    p: Plan,
    x: Tensor,
    residual: Tensor | None,
    weights: Sequence[Tensor | None],
    relu: bool,
    inplace: bool,
) -> Tensor:
    """``cbam`` by a plan from ``plan_again``; nothing is kept for a backward pass."""
    y = x if inplace else large_like(x)
    forward(p, x, weights, residual, relu, y, None)
    if inplace and not x.is_inference():
        increment_version(x)
    return y


def cbam_again_with_gates(
    p: Plan, x: Tensor, weights: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """The same, without residual or ReLU and not over x, with what a backward pass would need."""
    y = large_like(x)
    saved = torch.empty((p.samples, p.saved), dtype=p.wide)
    forward(p, x, weights, None, False, y, saved)
    return y, saved


@or_by_specification
def cbam_backward(
    dy: Tensor, x: Tensor, saved: Tensor, *arguments: Any, out: Tensor | None = None
) -> tuple[Tensor, ...]:
    """As ``raw.cbam_backward``; ``out`` is memory for the gradient of x."""
    weights, options, y = arguments[:6], arguments[6:10], arguments[10]
    p = _plan(x, weights[0], weights[4], options)
    if y is not None:
        dy = raw.through_relu(dy, y)
    dx = empty_like(x) if out is None else out
    wide = _wide(p, weights)
    gradients = [None if weight is None else weight.new_empty(weight.shape) for weight in wide]
    backward(p, dy, x, saved, wide, dx, gradients)
    # A tensor of its own for each that is absent: results of an operator must not share memory.
    of_weights = [
        saved.new_empty(0) if gradient is None else gradient.to(weight.dtype)
        for gradient, weight in zip(gradients, weights, strict=True)
    ]
    return (dx, *of_weights, saved.new_empty(0) if y is None else dy)
