"""What a raw operation does with tensors that hold data: one layout for all, then one choice.

Kernels see x contiguous or channels_last, and whatever is like x in the layout of x; gates,
descriptors and parameters contiguous. Other strides are copied first.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import increment_version

from whatwhere.ops.implementations import body
from whatwhere.ops.raw import memory_format


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.contiguous(memory_format=memory_format(x))


def _as(value: Tensor | None, x: Tensor) -> Tensor | None:
    return None if value is None else value.contiguous(memory_format=memory_format(x))


def _flat(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.contiguous()


def _weights(parameters: Sequence[Tensor | None]) -> list[Tensor | None]:
    # Kernels take the convolution's weights in any strides.
    *dense, conv, bias = parameters
    return [*map(_flat, dense), conv, _flat(bias)]


def _written(x: Tensor, dense: Tensor) -> None:
    if dense is not x:
        x.copy_(dense)
    elif not x.is_inference():  # kernels write behind autograd's back
        increment_version(x)


def pool_positions(x: Tensor, statistics: Sequence[str]) -> Any:
    """Descriptors (N, D, C) of x over its positions."""
    run = body("pool_positions", "pool_positions", x, statistics)
    return run(_dense(x), statistics)


def pool_positions_backward(
    grad: Tensor, x: Tensor, pooled: Tensor, statistics: Sequence[str]
) -> Any:
    """The gradient of x."""
    run = body("pool_positions_backward", "pool_positions", x, statistics)
    return run(grad.contiguous(), _dense(x), pooled, statistics)


def pool_channels(x: Tensor, channel_gate: Tensor | None, statistics: Sequence[str]) -> Any:
    """Descriptors (N, D, P) of x · channel_gate over its channels."""
    run = body("pool_channels", "pool_channels", x, statistics)
    return run(_dense(x), _flat(channel_gate), statistics)


def pool_channels_backward(
    grad: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    pooled: Tensor,
    statistics: Sequence[str],
) -> Any:
    """The gradients of x and of channel_gate."""
    run = body("pool_channels_backward", "pool_channels", x, statistics)
    return run(grad.contiguous(), _dense(x), _flat(channel_gate), pooled, statistics)


def apply_gates(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> Any:
    """relu?(x · gates + residual), like x."""
    run = body("apply_gates", "apply_gates", x, ())
    return run(_dense(x), _flat(channel_gate), _flat(spatial_gate), _as(residual, x), relu)


def apply_gates_(
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    residual: Tensor | None,
    relu: bool,
) -> None:
    """``apply_gates`` into x."""
    dense = _dense(x)
    run = body("apply_gates_", "apply_gates", x, ())
    run(dense, _flat(channel_gate), _flat(spatial_gate), _as(residual, x), relu)
    _written(x, dense)


def apply_gates_backward(
    dy: Tensor,
    x: Tensor,
    channel_gate: Tensor | None,
    spatial_gate: Tensor | None,
    y: Tensor | None,
) -> Any:
    """The gradients of x and of the gates."""
    run = body("apply_gates_backward", "apply_gates", x, ())
    return run(_as(dy, x), _dense(x), _flat(channel_gate), _flat(spatial_gate), _as(y, x))


def cbam(x: Tensor, *arguments: Any) -> Any:
    """Channel, then spatial attention of x, and what its backward needs."""
    *parameters, channel, spatial, scale, spatial_scale, residual, relu = arguments
    run = body("cbam", "cbam", x, (*channel, *spatial))
    weights = _weights(parameters)
    options = (channel, spatial, scale, spatial_scale)
    return run(_dense(x), *weights, *options, _as(residual, x), relu)


def cbam_(x: Tensor, *arguments: Any) -> None:
    """``cbam`` into x."""
    *parameters, channel, spatial, scale, spatial_scale, residual, relu = arguments
    run = body("cbam_", "cbam", x, (*channel, *spatial))
    weights = _weights(parameters)
    dense = _dense(x)
    run(dense, *weights, channel, spatial, scale, spatial_scale, _as(residual, x), relu)
    _written(x, dense)


def cbam_backward(dy: Tensor, x: Tensor, saved: Tensor, *arguments: Any) -> Any:
    """The gradients of x, of the parameters, and of the residual where there was a ReLU."""
    *parameters, channel, spatial, scale, spatial_scale, y = arguments
    run = body("cbam_backward", "cbam", x, (*channel, *spatial))
    weights = _weights(parameters)
    options = (channel, spatial, scale, spatial_scale)
    return run(_as(dy, x), _dense(x), saved, *weights, *options, _as(y, x))


BODIES: dict[str, Callable[..., Any]] = {
    run.__name__: run
    for run in (
        pool_positions,
        pool_positions_backward,
        pool_channels,
        pool_channels_backward,
        apply_gates,
        apply_gates_,
        apply_gates_backward,
        cbam,
        cbam_,
        cbam_backward,
    )
}
