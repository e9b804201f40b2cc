"""The gradient formula of every raw operation: what it saves, and what its backward calls.

The same formulas serve torch's dispatcher and the short way past it, see ``calls``. The gradient
of a backward operation differentiates the specification, and so on to any order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from whatwhere.ops import raw

Call = Callable[..., Any]
Setup = Callable[[Any, Sequence[Any], Any], None]
Backward = Callable[..., Any]


def formulas(call: Call) -> dict[str, tuple[Setup, Backward]]:
    """By operation: what keeps its context, and its gradient, which runs others by ``call``."""
    return {
        "pool_positions": _pool_positions(call),
        "pool_positions_backward": _pool_positions_backward(),
        "pool_channels": _pool_channels(call),
        "pool_channels_backward": _pool_channels_backward(),
        "apply_gates": _apply_gates(call),
        "apply_gates_backward": _apply_gates_backward(),
        "cbam": _cbam(call),
        "cbam_backward": _cbam_backward(),
    }


def _present(gradient: Tensor, of: Tensor | None) -> Tensor | None:
    return None if of is None else gradient


def _pool_positions(call: Call) -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
        x, ctx.statistics = inputs
        ctx.save_for_backward(x, output)

    def backward(ctx: Any, grad: Tensor) -> Any:
        x, pooled = ctx.saved_tensors
        return call("pool_positions_backward", grad, x, pooled, ctx.statistics), None

    return setup, backward


def _pool_channels(call: Call) -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
        x, gate, ctx.statistics = inputs
        ctx.save_for_backward(x, gate, output)

    def backward(ctx: Any, grad: Tensor) -> Any:
        x, gate, pooled = ctx.saved_tensors
        dx, dgate = call("pool_channels_backward", grad, x, gate, pooled, ctx.statistics)
        return dx, _present(dgate, gate), None

    return setup, backward


def _apply_gates(call: Call) -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
        x, channel, spatial, residual, relu = inputs
        ctx.residual = residual is not None
        ctx.save_for_backward(x, channel, spatial, output if relu else None)

    def backward(ctx: Any, dy: Tensor) -> Any:
        x, channel, spatial, y = ctx.saved_tensors
        dx, dchannel, dspatial = call("apply_gates_backward", dy, x, channel, spatial, y)
        dresidual = raw.through_relu(dy, y) if ctx.residual else None
        return dx, _present(dchannel, channel), _present(dspatial, spatial), dresidual, None

    return setup, backward


def _cbam(call: Call) -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, Tensor]) -> None:
        x, w0, b0, w1, b1, wc, bc, *ctx.options, residual, relu = inputs
        y, saved = output
        ctx.residual = residual is not None
        # Nothing differentiates what is saved: without this it would get a gradient of zeros.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, saved, w0, b0, w1, b1, wc, bc, y if relu else None)

    def backward(ctx: Any, dy: Tensor | None, _dsaved: Tensor | None) -> Any:
        if dy is None:
            return (None,) * 13
        x, saved, *parameters, y = ctx.saved_tensors
        dx, *rest, dresidual = call("cbam_backward", dy, x, saved, *parameters, *ctx.options, y)
        gradients = [_present(g, p) for g, p in zip(rest, parameters, strict=True)]
        if y is None:
            dresidual = dy
        return (dx, *gradients, *(None,) * 4, dresidual if ctx.residual else None, None)

    return setup, backward


def _pull_back(
    function: Callable[..., Any], primals: Sequence[Tensor | None], cotangents: Any
) -> list[Tensor | None]:
    """The gradient of ``function`` at each primal, None where that is None; differentiable."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that the way from one primal to another is not part of its gradient.
        own = [
            None if p is None else p.view_as(p) if p.requires_grad else p.detach().requires_grad_()
            for p in primals
        ]
        outputs = function(*own)
        given = [primal for primal in own if primal is not None]
        gradients = iter(
            torch.autograd.grad(
                outputs, given, cotangents, create_graph=create_graph, materialize_grads=True
            )
        )
    return [None if primal is None else next(gradients) for primal in own]


def _second(
    function: Callable[..., Tensor],
    dy: Tensor,
    primals: Sequence[Tensor | None],
    cotangents: Sequence[Tensor],
) -> list[Tensor | None]:
    """The gradient, at dy and at the primals, of ``function``'s own gradient."""

    def first(dy: Tensor, *primals: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(g for g in _pull_back(function, primals, dy) if g is not None)

    wanted = tuple(c for c, p in zip(cotangents, primals, strict=True) if p is not None)
    return _pull_back(first, [dy, *primals], wanted)


def _pool_positions_backward() -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], _output: Any) -> None:
        grad, x, _pooled, ctx.statistics = inputs
        ctx.save_for_backward(grad, x)

    def backward(ctx: Any, cotangent: Tensor) -> Any:
        grad, x = ctx.saved_tensors

        def function(x: Tensor) -> Tensor:
            return raw.pool_positions(x, ctx.statistics)

        return (*_second(function, grad, [x], [cotangent]), None, None)

    return setup, backward


def _pool_channels_backward() -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], _output: Any) -> None:
        grad, x, gate, _pooled, ctx.statistics = inputs
        ctx.save_for_backward(grad, x, gate)

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        grad, x, gate = ctx.saved_tensors

        def function(x: Tensor, gate: Tensor | None) -> Tensor:
            return raw.pool_channels(x, gate, ctx.statistics)

        return (*_second(function, grad, [x, gate], cotangents), None, None)

    return setup, backward


def _apply_gates_backward() -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], _output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        dy, x, channel, spatial, y = ctx.saved_tensors

        def function(x: Tensor, channel: Tensor | None, spatial: Tensor | None) -> Tensor:
            return raw.apply_gates(x, channel, spatial, None, False)

        primals = [x, channel, spatial]
        ddy, *rest = _second(function, raw.through_relu(dy, y), primals, cotangents)
        assert ddy is not None
        return (raw.through_relu(ddy, y), *rest, None)

    return setup, backward


def _cbam_backward() -> tuple[Setup, Backward]:
    def setup(ctx: Any, inputs: Sequence[Any], _output: Any) -> None:
        dy, x, _saved, w0, b0, w1, b1, wc, bc, *ctx.options, y = inputs
        ctx.save_for_backward(dy, x, w0, b0, w1, b1, wc, bc, y)

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        dy, *primals, y = ctx.saved_tensors

        def function(*primals: Any) -> Tensor:
            arguments = (*primals, *ctx.options, None, False)
            return raw.cbam(*arguments)[0]

        ddy, dx, *rest = _second(function, raw.through_relu(dy, y), primals, cotangents[:-1])
        assert ddy is not None
        if y is not None:
            ddy = raw.through_relu(ddy + cotangents[-1], y)
        return (ddy, dx, None, *rest, *(None,) * 4, None)

    return setup, backward
