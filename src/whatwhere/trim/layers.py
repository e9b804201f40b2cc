"""The layer that a constant gate can become part of: finding it, scaling it, and the proof of that.

What a gate multiplies was made by a convolution, a linear layer or a norm, perhaps with steps
between that multiples pass through: relu(c · x) = c · relu(x) for c ≥ 0. It is found in one run of
the network (``surgery.trace``), not by class names; that scaling the layer's weight and bias scales
what the gate sees is tried out on data.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whatwhere.ops import accumulation_dtype
from whatwhere.surgery.graph import Node, Trace

LAYERS = ("convolution", "batch_norm", "group_norm", "layer_norm")
# f(c · x) = c · f(x) for every c > 0, also one per channel.
HOMOGENEOUS = frozenset(
    {
        *("relu", "relu_", "leaky_relu", "leaky_relu_"),
        *("max_pool2d_with_indices", "max_pool3d_with_indices"),
        *("avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
        *("native_dropout", "clone", "alias", "detach", "mul", "mul_"),
        *("view", "_unsafe_view", "permute", "transpose", "squeeze", "unsqueeze"),
    }
)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PROBE = 2.0  # a power of two, so that scaling by it rounds nothing
ROUNDINGS = 64  # of the probe, in units of the last place of the largest value


@dataclass(frozen=True)
class Unfit:
    """Why a gate has no layer to become part of."""

    reason: str


class Graph:
    """A run of a network, asked for the layer before a gate."""

    def __init__(self, model: nn.Module, run: Trace) -> None:
        self.model = model
        self.run = run
        self.outer = {*run.calls[0].given, *run.calls[0].returned}

    def layer_before(self, gate: str) -> str | Unfit:
        """The name of the module whose weight and bias scale what the module ``gate`` takes."""
        own = [call for call in self.run.calls if call.name == gate]
        if len(own) != 1:
            return Unfit(f"it runs {len(own)} times")
        (node,) = own[0].given
        if node in self.outer or not all(own[0].holds(user) for user in self.run.users[node]):
            return Unfit("what it multiplies is used elsewhere too")
        while not self._is_layer(node):
            before = _scaled_input(node)
            if before is None:
                return Unfit(f"no multiple passes through {node.operation} before it")
            if self.run.users[before] != [node] or before in self.outer:
                return Unfit(f"what comes before {node.operation} is used elsewhere too")
            node = before
        return self._checked(node.module)

    def _is_layer(self, node: Node) -> bool:
        # A linear layer, of channels on the last axis, is one operation or several.
        linear = isinstance(self.model.get_submodule(node.module), nn.Linear)
        return linear or any(layer in node.operation for layer in LAYERS)

    def _checked(self, name: str) -> str | Unfit:
        layer = self.model.get_submodule(name)
        shown = name if name != "" else type(self.model).__name__
        if not isinstance(layer._parameters.get("weight"), nn.Parameter):
            return Unfit(f"{shown} has no weight of its own")
        if parametrize.is_parametrized(layer):
            return Unfit(f"{shown} is parametrised")
        if self.run.runs[name] != 1:
            return Unfit(f"{shown} runs {self.run.runs[name]} times")
        own = {id(parameter) for parameter in affine(layer)}
        held = [id(p) for _, p in self.model.named_parameters(remove_duplicate=False)]
        if sum(each in own for each in held) != len(own):
            return Unfit(f"{shown} shares its weights with other modules")
        return name


def _scaled_input(node: Node) -> Node | None:
    """The input of a node that it is a multiple of."""
    if node.operation not in HOMOGENEOUS:
        return None
    inputs = dict.fromkeys(node.inputs)
    if node.operation in ("mul", "mul_"):
        # By what does not depend on the layer: else the layer would have another user.
        inputs = dict.fromkeys(each for each in inputs if each.shape == node.shape)
        if node.inputs.count(next(iter(inputs), node)) != 1:
            return None
    return next(iter(inputs)) if len(inputs) == 1 else None


def affine(layer: nn.Module) -> list[nn.Parameter]:
    """The weight of a layer, and its bias if it has one."""
    found = [layer._parameters.get("weight"), layer._parameters.get("bias")]
    return [each for each in found if each is not None]


def scale(layer: nn.Module, factor: Tensor) -> None:
    """Multiply weight and bias of a layer, in place, by one factor or one per output channel.

    >>> layer = nn.Conv2d(3, 2, 1)
    >>> before = layer.weight.clone()
    >>> scale(layer, torch.tensor([2.0, 0.5]))
    >>> (layer.weight / before).flatten(1)
    tensor([[2.0000, 2.0000, 2.0000],
            [0.5000, 0.5000, 0.5000]], grad_fn=...)

    Raises:
        ValueError: the layer has another number of channels.
    """
    grouped = isinstance(layer, TRANSPOSED)
    with torch.no_grad():
        for index, parameter in enumerate(affine(layer)):
            dtype = accumulation_dtype(parameter.dtype)
            wide = parameter.to(dtype)
            each = factor.to(parameter.device, dtype)
            if each.numel() > 1 and grouped and index == 0:
                groups: Any = layer.groups
                # (in, out / groups, *K), where the inputs of a group are together.
                whole = wide.reshape(groups, -1, *wide.shape[1:])
                each = each.reshape(groups, 1, -1, *(1,) * (wide.ndim - 2))
                wide = (whole * each).reshape(wide.shape)
            else:
                if each.numel() not in (1, wide.shape[0]):
                    raise ValueError(f"expected {wide.shape[0]} factors, got {each.numel()}")
                wide = wide * each.reshape(-1, *(1,) * (wide.ndim - 1))
            parameter.copy_(wide)


@contextmanager
def scaled(model: nn.Module, factors: Sequence[tuple[str, Tensor]]) -> Iterator[None]:
    """Scale layers by name for the length of a block; their weights are put back bit for bit."""
    layers = {name: model.get_submodule(name) for name, _ in factors}
    kept = {name: [p.detach().clone() for p in affine(layer)] for name, layer in layers.items()}
    try:
        for name, factor in factors:
            scale(layers[name], factor)
        yield
    finally:
        with torch.no_grad():
            for name, layer in layers.items():
                for parameter, before in zip(affine(layer), kept[name], strict=True):
                    parameter.copy_(before)


def probe(model: nn.Module, inputs: Tensor, layer: str, gate: nn.Module, like: Tensor) -> bool:
    """Whether scaling a layer, by as many factors as ``like`` has, scales what a gate takes.

    The first factor is 2, the second 1/2, the third 2, and so on.
    """
    factor = torch.full_like(like, PROBE)
    factor[1::2] = 1 / PROBE
    taken = _taken(model, inputs, gate)
    try:
        with scaled(model, [(layer, factor)]):
            after = _taken(model, inputs, gate)
    except ValueError:  # another number of channels
        return False
    wide = accumulation_dtype(taken.dtype)
    expected = taken.to(wide) * factor.to(taken.device, wide).reshape(-1, *(1,) * (taken.ndim - 2))
    if not expected.any():  # which says nothing
        return False
    allowed = ROUNDINGS * torch.finfo(taken.dtype).eps * expected.abs().max()
    return bool(((after.to(wide) - expected).abs() <= allowed).all())


def _taken(model: nn.Module, inputs: Tensor, gate: nn.Module) -> Tensor:
    """What a gate takes in a run."""
    taken: list[Tensor] = []

    def keep(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        taken.append(arguments[0].detach().clone())

    handle = gate.register_forward_pre_hook(keep)
    try:
        model(inputs)
    finally:
        handle.remove()
    [x] = taken
    return x
