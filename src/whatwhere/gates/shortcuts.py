"""Where the modules inside a gate may be passed by: nobody hooks in, each is as it was built.

Calling modules one by one costs more than small gates do. What is decided here is decided anew
in every call, from the modules as they are. Who only watches a gate need not stop it: ``Watcher``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeGuard

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from whatwhere.gates.activations import Activation, Watcher
from whatwhere.gates.algebra import Gate
from whatwhere.gates.mixes import BATCH_NORMS, CONVOLUTIONS, DenseMix, PositionConv
from whatwhere.ops import accumulation_dtype, cbam, cbam_with_gates

_CONVOLUTIONS = frozenset(CONVOLUTIONS.values())
_NORMS = frozenset(BATCH_NORMS.values())
_STATISTICS = frozenset({"mean", "max"})
_SIGMOIDS = frozenset({"sigmoid", "double_sigmoid"})
_WATCHER = frozenset({Watcher})
_DENSE, _CONV = frozenset({DenseMix}), frozenset({PositionConv})


def is_plain_gate(module: nn.Module) -> TypeGuard[Gate]:
    """Whether calling a module is what ``Gate`` does, and nothing more."""
    kind: Any = type(module)
    return (
        isinstance(module, Gate)
        and module.plain
        and kind.forward is Gate.forward
        and kind.last_pass is Gate.last_pass
        and kind.gate is Gate.gate
        and kind.values is Gate.values
        and kind.descriptors is Gate.descriptors
        and kind.squashed is Gate.squashed
        and quiet(module)
    )


def as_cbam(first: nn.Module, second: nn.Module, x: Tensor) -> Callable[..., Tensor] | None:
    """A channel and then a spatial gate of x as one call of ``ops.cbam``, to be given x.

    None where that would pass by anything but the arithmetic: hooks, other classes, a norm in
    training; or where x is not what the gates take, which they themselves refuse.
    """
    if not (_sigmoid_gate(first, "C") and _sigmoid_gate(second, "S")):
        return None
    dense, conv = _dense(first), _conv(second)
    if dense is None or conv is None or global_hooks():
        return None
    activations: Any = first._modules["activation"], second._modules["activation"]
    w0, b0, w1, b1 = dense
    weight, bias = conv
    if not (
        isinstance(x, Tensor)
        and x.ndim == weight.ndim
        and x.shape[1] == w0.shape[1]
        and 0 not in x.shape[1:]
        and (x.dtype == w0.dtype or accumulation_dtype(x.dtype) == accumulation_dtype(w0.dtype))
        and x.is_floating_point()
    ):
        return None
    arguments = {
        "reduce_weight": w0,
        "reduce_bias": b0,
        "expand_weight": w1,
        "expand_bias": b1,
        "conv_weight": weight,
        "conv_bias": bias,
        "channel_statistics": first.statistics,
        "spatial_statistics": second.statistics,
        "channel_activation": activations[0].name,
        "spatial_activation": activations[1].name,
    }
    if activations[0]._forward_hooks or activations[1]._forward_hooks:
        watchers = [tuple(activation._forward_hooks.values()) for activation in activations]
        return partial(_watched, watchers, arguments)
    return partial(cbam, **arguments)


def _watched(watchers: Sequence[Sequence[Watcher]], arguments: dict[str, Any], x: Tensor) -> Tensor:
    y, *gates = cbam_with_gates(x, **arguments)
    for gate, those in zip(gates, watchers, strict=True):
        for watcher in those:
            watcher.see(gate)
    return y


def _sigmoid_gate(module: nn.Module, keep: str) -> TypeGuard[Gate]:
    if not is_plain_gate(module) or module.keep != keep:
        return False
    activation: Any = module._modules["activation"]
    return (
        type(activation) is Activation
        and (quiet(activation) or _only_watched(activation))
        and activation.name in _SIGMOIDS
        and _STATISTICS.issuperset(module.statistics)
    )


def _dense(gate: Gate) -> Any:
    """W0, b0, W1 and b1 of a channel gate."""
    mix: Any = gate._modules["mix"]
    if not _is(mix, _DENSE) or mix.axis != 1:
        return None
    reduce, expand = mix._modules["reduce"], mix._modules["expand"]
    if type(reduce) is not nn.Linear or type(expand) is not nn.Linear:
        return None
    w0, b0 = _affine(reduce)
    w1, b1 = _affine(expand)
    return None if w0 is None or w1 is None else (w0, b0, w1, b1)


def _conv(gate: Gate) -> Any:
    """Weight and bias of a spatial gate, with its norm folded in."""
    mix: Any = gate._modules["mix"]
    if not _is(mix, _CONV):
        return None
    layer, norm = mix._modules["conv"], mix._modules.get("norm")
    if type(layer) not in _CONVOLUTIONS or layer.padding_mode != "zeros":
        return None
    weight, bias = _affine(layer)
    if norm is None or weight is None:
        return None if weight is None else (weight, bias)
    if norm.training or not _is(norm, _NORMS):
        return None
    return _folded(weight, bias, norm)


def _folded(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor] | None:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or norm.weight is None:
        return None
    dtype = accumulation_dtype(weight.dtype)
    scale = norm.weight.to(dtype) * (variance.to(dtype) + norm.eps).rsqrt()
    shift = norm.bias.to(dtype) - mean.to(dtype) * scale
    if bias is not None:
        shift = shift + bias.to(dtype) * scale
    return weight.to(dtype) * scale, shift


def _affine(layer: Any) -> tuple[Tensor | None, Tensor | None]:
    # Mixes use the tensors of their layers and never call them, so hooks of these don't matter.
    # Not by attribute: modules look those up slowly, and parametrised ones compute them.
    return layer._parameters.get("weight"), layer._parameters.get("bias")


def _is(module: Any, kinds: frozenset[type[nn.Module]]) -> bool:
    return type(module) in kinds and quiet(module)


def _only_watched(activation: Any) -> bool:
    """Whether all that keeps an activation from being ``quiet`` are watchers."""
    return (
        _WATCHER.issuperset(map(type, activation._forward_hooks.values()))
        and not activation._forward_pre_hooks
        and not activation._backward_hooks
        and not activation._backward_pre_hooks
        and "forward" not in activation.__dict__
    )


def quiet(module: Any) -> bool:
    """Whether nobody hooks into a module, or gave it, as some libraries do, its own forward."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def global_hooks() -> bool:
    """Whether somebody hooks into every module."""
    return bool(
        hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
        or hooks._global_backward_hooks
        or hooks._global_backward_pre_hooks
    )
