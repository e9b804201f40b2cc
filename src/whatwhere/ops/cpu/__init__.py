"""The operations on the CPU by compiled kernels: the raw functions of ``ops.raw``, faster.

``threads`` runs the kernels on torch's threads, ``native`` compiles, keeps and loads them, ``cbam``
plans memory and steps. Only ``kernels`` imports Numba, and is imported only to compile.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from whatwhere.ops import raw
from whatwhere.ops.cpu.cbam import Plan, backward, forward, plan
from whatwhere.ops.cpu.native import SUPPORTED, KernelError, kernel, trouble
from whatwhere.ops.raw import memory_format

# Kernels keep the index of a maximum as a float32.
LARGEST_INDEX = 2**24

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
    if op != "cbam":
        return f"there is no kernel for {op}"
    if trouble() is not None:
        return trouble()
    if dtype not in SUPPORTED:
        return f"x has the dtype {dtype}"
    try:
        kernel("forward_planes" if by_plane else "forward_pixels", dtype)
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


def _like(x: Tensor) -> Tensor:
    # By the layout, not by x's strides, which tell nothing where an axis has one element or none.
    return torch.empty_like(x, memory_format=memory_format(x))


def _wide(p: Plan, weights: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [w if w is None or w.dtype is p.wide else w.to(p.wide) for w in weights]


def cbam(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """As ``raw.cbam``."""
    y = _like(x)
    return y, _cbam_into(x, y, arguments)


def cbam_(x: Tensor, *arguments: Any) -> None:
    """As ``raw.cbam_``."""
    _cbam_into(x, x, arguments)


def _cbam_into(x: Tensor, y: Tensor, arguments: Sequence[Any]) -> Tensor:
    weights, options, (residual, relu) = arguments[:6], arguments[6:10], arguments[10:]
    p = _plan(x, weights[0], weights[4], options)
    saved = torch.empty((p.samples, p.saved), dtype=p.wide)
    forward(p, x, _wide(p, weights), residual, relu, y, saved)
    return saved


def _or_by_specification(backward: Callable[..., Any]) -> Callable[..., Any]:
    # ``unsupported`` makes forward kernels alone, which are all that inference needs. Where that of
    # the gradient can't be made, a training goes on by the specification; ``kernel`` has said so.
    specification = getattr(raw, backward.__name__)

    @wraps(backward)
    def run(*arguments: Any) -> Any:
        try:
            return backward(*arguments)
        except KernelError:
            return specification(*arguments)

    return run


@_or_by_specification
def cbam_backward(dy: Tensor, x: Tensor, saved: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """As ``raw.cbam_backward``."""
    weights, options, y = arguments[:6], arguments[6:10], arguments[10]
    p = _plan(x, weights[0], weights[4], options)
    if y is not None:
        dy = raw.through_relu(dy, y)
    dx = _like(x)
    wide = _wide(p, weights)
    gradients = [None if weight is None else torch.empty_like(weight) for weight in wide]
    backward(p, dy, x, saved, wide, dx, gradients)
    # A tensor of its own for each that is absent: results of an operator must not share memory.
    out = [
        saved.new_empty(0) if gradient is None else gradient.to(weight.dtype)
        for gradient, weight in zip(gradients, weights, strict=True)
    ]
    return (dx, *out, saved.new_empty(0) if y is None else dy)
