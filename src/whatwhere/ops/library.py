"""The raw operations as operators of torch: what compiles, exports, batches and differentiates.

Each operator has a schema, a shape rule (*fake*), and a gradient that is an operator itself, whose
own gradient differentiates the specification; ``batching`` adds the rules for ``vmap``.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from whatwhere.ops.batching import RULES
from whatwhere.ops.bodies import BODIES
from whatwhere.ops.gradients import Setup, formulas
from whatwhere.ops.raw import memory_format
from whatwhere.ops.reference import accumulation_dtype

PARAMETERS = "Tensor w0, Tensor? b0, Tensor w1, Tensor? b1, Tensor wc, Tensor? bc"
OPTIONS = (
    "str[] channel_statistics, str[] spatial_statistics, float channel_scale, float spatial_scale"
)
GATES = "Tensor? channel_gate, Tensor? spatial_gate"
SCHEMAS = {
    "pool_positions": "(Tensor x, str[] statistics) -> Tensor",
    "pool_positions_backward": "(Tensor grad, Tensor x, Tensor pooled, str[] statistics) -> Tensor",
    "pool_channels": "(Tensor x, Tensor? channel_gate, str[] statistics) -> Tensor",
    "pool_channels_backward": "(Tensor grad, Tensor x, Tensor? channel_gate, Tensor pooled, "
    "str[] statistics) -> (Tensor, Tensor)",
    "apply_gates": f"(Tensor x, {GATES}, Tensor? residual, bool relu) -> Tensor",
    "apply_gates_": f"(Tensor(a!) x, {GATES}, Tensor? residual, bool relu) -> ()",
    "apply_gates_backward": f"(Tensor dy, Tensor x, {GATES}, Tensor? y) -> "
    "(Tensor, Tensor, Tensor)",
    "cbam": f"(Tensor x, {PARAMETERS}, {OPTIONS}, Tensor? residual, bool relu) -> (Tensor, Tensor)",
    "cbam_": f"(Tensor(a!) x, {PARAMETERS}, {OPTIONS}, Tensor? residual, bool relu) -> ()",
    "cbam_backward": f"(Tensor dy, Tensor x, Tensor saved, {PARAMETERS}, {OPTIONS}, Tensor? y)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
}


def _empty(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=accumulation_dtype(x.dtype))


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


def _of(parameter: Tensor | None, x: Tensor) -> Tensor:
    return _empty(x, 0) if parameter is None else parameter.new_empty(parameter.shape)


def _pool_positions(x: Tensor, statistics: Sequence[str]) -> Tensor:
    return _empty(x, x.shape[0], len(statistics), x.shape[1])


def _pool_positions_backward(_grad: Tensor, x: Tensor, *_others: Any) -> Tensor:
    return _like(x)


def _pool_channels(x: Tensor, _gate: Tensor | None, statistics: Sequence[str]) -> Tensor:
    return _empty(x, x.shape[0], len(statistics), prod(x.shape[2:]))


def _pool_channels_backward(
    _grad: Tensor, x: Tensor, gate: Tensor | None, *_others: Any
) -> tuple[Tensor, Tensor]:
    return _like(x), _of(gate, x)


def _apply_gates(x: Tensor, *_others: Any) -> Tensor:
    return _like(x)


def _nothing(_x: Tensor, *_others: Any) -> None:
    return None


def _apply_gates_backward(
    _dy: Tensor, x: Tensor, channel: Tensor | None, spatial: Tensor | None, _y: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x), _of(channel, x), _of(spatial, x)


def _cbam(x: Tensor, w0: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    *_parameters, channel, spatial, _scale, _spatial_scale, _residual, _relu = others
    hidden, channels = w0.shape
    positions = prod(x.shape[2:])
    row = len(channel) * (channels + hidden) + channels + (len(spatial) + 1) * positions
    return _like(x), _empty(x, x.shape[0], row)


def _cbam_backward(_dy: Tensor, x: Tensor, _saved: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *parameters, _channel, _spatial, _scale, _spatial_scale, y = others
    gradients = [_of(parameter, x) for parameter in parameters]
    return (_like(x), *gradients, _empty(x, 0) if y is None else _like(x))


FAKES: dict[str, Callable[..., Any]] = {
    "pool_positions": _pool_positions,
    "pool_positions_backward": _pool_positions_backward,
    "pool_channels": _pool_channels,
    "pool_channels_backward": _pool_channels_backward,
    "apply_gates": _apply_gates,
    "apply_gates_": _nothing,
    "apply_gates_backward": _apply_gates_backward,
    "cbam": _cbam,
    "cbam_": _nothing,
    "cbam_backward": _cbam_backward,
}

_library = torch.library.Library("whatwhere", "FRAGMENT")
OPERATORS: dict[str, Callable[..., Any]] = {}


def call_operator(op: str, *arguments: Any) -> Any:
    """Run a raw operation through torch's dispatcher."""
    return OPERATORS[op](*arguments)


def _by_keyword(setup: Setup) -> Setup:
    # torch calls it with these keywords, which formulas that ignore one would have to keep.
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        setup(ctx, inputs, output)

    return setup_context


def _register() -> None:
    gradients = formulas(call_operator)
    # Exact strides: what is like x is so in its layout too, and the backward relies on it.
    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    for op, schema in SCHEMAS.items():
        name = f"whatwhere::{op}"
        _library.define(op + schema, tags=tags)
        _library.impl(op, BODIES[op], "CompositeExplicitAutograd")
        torch.library.register_fake(name, FAKES[op], lib=_library)
        if op in gradients:
            setup, backward = gradients[op]
            register = torch.library.register_autograd
            register(name, backward, setup_context=_by_keyword(setup), lib=_library)
        if op in RULES:
            torch.library.register_vmap(name, RULES[op], lib=_library)
        OPERATORS[op] = getattr(torch.ops.whatwhere, op).default


_register()
