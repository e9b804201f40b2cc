"""The gates of one batch as plain tensors with names, and what they were computed on."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from whatwhere.evaluation import evaluating
from whatwhere.gates import ACTIVATIONS, Gate, Kind, Par
from whatwhere.look.record import gates_in, record


@dataclass(frozen=True)
class GateMap:
    """One gate as it ran on a batch.

    Attributes:
        name: qualified name of the gate in the network; of a second call ``name#2``, and so on.
        kind: "what", "where", "when" or "joint".
        values: the gate (N, ...), in the network's dtype and on its device. Axes it does not keep
            have size 1: (N, C, 1, 1) of a what gate on images, (N, 1, H, W) of a where gate.
        start: the value from which training moved it, 1 for 2σ and 0.5 for σ.
        neutral: the value that leaves the feature map as it is, 1, or 0 of a gate that is added.
        bottom: lower end of the activation's range.
        top: upper end of it.
        features: the feature map (N, C, *S) that the attention around this gate was given; None
            where that was not seen, as of a gate that the network calls in a way of its own.
    """

    name: str
    kind: Kind
    values: Tensor
    start: float
    neutral: float
    bottom: float
    top: float
    features: Tensor | None


def maps(model: nn.Module, x: Tensor) -> dict[str, GateMap]:
    """Every gate on one batch, by name, in the order in which they first ran.

    The network runs once, in evaluation mode, and stays as found.

    Args:
        model: the network.
        x: (N, C, *S) as the network takes it, on its device.

    Raises:
        ValueError: no gate ran.

    >>> import torch
    >>> from whatwhere import CBAM
    >>> found = maps(nn.Sequential(CBAM(8, start="identity")), torch.randn(2, 8, 5, 6))
    >>> for name, gate in found.items():
    ...     print(name, gate.kind, tuple(gate.values.shape), gate.start)
    0.gates.channel what (2, 8, 1, 1) 1
    0.gates.spatial where (2, 1, 5, 6) 1
    """
    known = gates_in(model)
    roots = {name: root_of(model, name) for name in known}
    entered: dict[str, list[Tensor]] = {root: [] for root in roots.values()}
    handles = []
    try:
        for root, given in entered.items():

            def see(_: nn.Module, inputs: tuple[Tensor, ...], given: list[Tensor] = given) -> None:
                given.append(inputs[0].detach())

            handles.append(model.get_submodule(root).register_forward_pre_hook(see))
        with evaluating(model), record(model) as recorded:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not recorded:
        raise ValueError(
            f"expected a network with gates that run, got {type(model).__name__} with "
            f"{len(known)} gates, none of which ran"
        )
    found: dict[str, GateMap] = {}
    for name, calls in recorded.items():
        features = entered[roots[name]]
        for call, values in enumerate(calls):
            called = name if call == 0 else f"{name}#{call + 1}"
            seen = features[call] if len(features) == len(calls) else None
            found[called] = _map(called, known[name], values, seen)
    return found


def channels_seen(gate: GateMap) -> bool:
    """Whether the feature map's channels are those that a what gate weighs, one for one."""
    features = gate.features
    return features is not None and gate.values.shape[:2] == features.shape[:2]


def root_of(model: nn.Module, name: str) -> str:
    """The outermost module of this library around a gate: what the network calls."""
    steps = name.split(".") if name else []
    for depth in range(len(steps) + 1):
        outer = ".".join(steps[:depth])
        if type(model.get_submodule(outer)).__module__.startswith("whatwhere.gates."):
            return outer
    return name


def _map(name: str, gate: Gate | Par, values: Tensor, features: Tensor | None) -> GateMap:
    squash = ACTIVATIONS[gate.activation.name]
    return GateMap(
        name=name,
        kind=gate.kind,
        values=values,
        start=gate.neutral if math.isinf(squash.top) else squash.zero,
        neutral=gate.neutral,
        bottom=squash.bottom,
        top=squash.top,
        features=features,
    )
