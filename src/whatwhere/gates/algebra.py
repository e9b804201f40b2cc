"""The algebra every gate is a sentence of: summarise x, mix the summaries, squash, multiply.

``Gate(keep, statistics, mix, activation)`` is one gate, ``Seq`` applies gates one after another,
``Par`` joins gates that look at the same x.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from whatwhere.checks import check_choice, check_distinct, check_feature_map
from whatwhere.ops import (
    ACTIVATIONS,
    STATISTICS,
    ActivationName,
    Statistic,
    activate,
    apply_gate,
    pool,
)

Keep = Literal["C", "S", "T"]
Kind = Literal["what", "where", "when", "joint"]
Start = Literal["paper", "identity"]

KINDS: dict[Keep, Kind] = {"C": "what", "S": "where", "T": "when"}
STARTS: tuple[Start, ...] = get_args(Start)


class Activation(nn.Module):
    """The last step of a gate, a module so that a forward hook on it sees every gate's values."""

    def __init__(self, name: ActivationName) -> None:
        check_choice("Activation", "name", name, ACTIVATIONS)
        super().__init__()
        self.name = name

    def forward(self, logits: Tensor) -> Tensor:
        """The gate of these logits."""
        return activate(logits, self.name)

    def extra_repr(self) -> str:
        """The name, for printing."""
        return self.name


class Mix(nn.Module):
    """What turns descriptors into logits; ``DenseMix`` and ``PositionConv`` are the two kinds."""

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Logits that broadcast against x."""
        raise NotImplementedError

    def check_gate(self, owner: str, keep: Keep, statistics: Sequence[Statistic]) -> None:
        """Refuse a gate this mix was not built for."""
        raise NotImplementedError

    def check(self, owner: str, x: Tensor) -> None:
        """Refuse an x this mix was not built for."""
        raise NotImplementedError

    def zero_logits(self) -> None:
        """Set the last layer so that the logits are 0 for every x."""
        raise NotImplementedError


class Gate(nn.Module):
    r"""One gate: g = activation(mix(statistics of x over all axes but ``keep``)), y = x · g.

    Args:
        keep: the axes the gate keeps, besides N: "C" channels (*what*), "S" all positions
            (*where*), "T" the first position axis of (N, C, L) or (N, C, T, H, W) (*when*).
        statistics: "mean" and "max", in the order in which ``mix`` receives them.
        mix: from descriptors to logits.
        activation: "sigmoid", "double_sigmoid" or, inside a ``Par`` that joins logits, "identity".
        start: "paper" leaves the parameters as the mix made them. "identity" makes y = x exactly
            until the first optimiser step: logits 0 under the activation 2σ, since 2σ(0) = 1.

    Descriptors and mix are computed in float32 at least, under autocast and with half-precision
    parameters too, since they are tiny and lose most there; g is cast to the dtype of x.

    >>> from whatwhere.gates.mixes import DenseMix
    >>> squeeze_excite = Gate(keep="C", statistics=["mean"], mix=DenseMix(8, hidden=2, bias=True))
    >>> squeeze_excite.gate(torch.ones(4, 8, 5, 5)).shape
    torch.Size([4, 8, 1, 1])
    """

    def __init__(
        self,
        *,
        keep: Keep,
        statistics: Sequence[Statistic],
        mix: Mix,
        activation: ActivationName = "sigmoid",
        start: Start = "paper",
    ) -> None:
        owner = type(self).__name__
        check_choice(owner, "keep", keep, tuple(KINDS))
        check_distinct(owner, "statistics", statistics, STATISTICS)
        check_choice(owner, "start", start, STARTS)
        mix.check_gate(owner, keep, statistics)
        super().__init__()
        self.keep = keep
        self.statistics: tuple[Statistic, ...] = tuple(statistics)
        self.mix = mix
        if start == "identity":
            activation = _identity_activation(owner, activation)
            mix.zero_logits()
        self.activation = Activation(activation)

    @property
    def kind(self) -> Kind:
        """What the gate attends to: "what", "where" or "when"."""
        return KINDS[self.keep]

    def gate(self, x: Tensor) -> Tensor:
        """The gate of x alone, in the dtype of x; pooled axes have size 1."""
        ranks = (3, 5) if self.keep == "T" else (3, 4, 5)
        check_feature_map(type(self).__name__, x, ranks)
        self.mix.check(type(self).__name__, x)
        kept = {"C": {1}, "S": set(range(2, x.ndim)), "T": {2}}[self.keep]
        axes = [axis for axis in range(1, x.ndim) if axis not in kept]
        with _without_autocast(x):
            logits = self.mix(pool(x, axes, self.statistics))
            gate: Tensor = self.activation(logits)
        return gate.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        return apply_gate(x, self.gate(x))

    def extra_repr(self) -> str:
        """Kept axes and statistics, for printing."""
        return f"keep={self.keep!r}, statistics={self.statistics}"


class Seq(nn.Module):
    """Gates one after another: each sees the output of the one before.

    >>> from whatwhere.gates import ChannelAttention, SpatialAttention
    >>> cbam = Seq(channel=ChannelAttention(32), spatial=SpatialAttention())
    >>> cbam(torch.ones(2, 32, 7, 7)).shape
    torch.Size([2, 32, 7, 7])
    """

    def __init__(self, **gates: nn.Module) -> None:
        _check_gates("Seq", gates)
        super().__init__()
        for name, gate in gates.items():
            self.add_module(name, gate)

    def gate(self, x: Tensor) -> Tensor:
        """The product of the gates, each computed on the output of the ones before."""
        total = torch.ones((), dtype=x.dtype, device=x.device)
        parts: Any = self.children()
        for part in parts:
            gate = part.gate(x)
            total = total * gate
            x = apply_gate(x, gate)
        return total

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        for gate in self.children():
            x = gate(x)
        return x


class Par(nn.Module):
    """Gates side by side, all computed on the same x and joined into one.

    Args:
        join: "logits": y = x · activation(Σ logits), so the gates inside have the activation
            "identity". "gates": y = x · Π gates.
        activation: of the joined logits; only with ``join="logits"``, where it is "sigmoid" if
            not given.
        start: as for ``Gate``; only with ``join="logits"``.

    >>> from whatwhere.gates import ChannelAttention, SpatialAttention
    >>> both = Par(join="gates", channel=ChannelAttention(8), spatial=SpatialAttention())
    >>> both.gate(torch.ones(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    kind: Kind = "joint"

    def __init__(
        self,
        *,
        join: Literal["logits", "gates"],
        activation: ActivationName | None = None,
        start: Start = "paper",
        **gates: nn.Module,
    ) -> None:
        check_choice("Par", "join", join, ("logits", "gates"))
        check_choice("Par", "start", start, STARTS)
        _check_gates("Par", gates)
        if join == "gates" and (activation is not None or start != "paper"):
            raise ValueError(
                'Par: expected activation and start only with join="logits"; with join="gates" '
                f"each gate has its own, got activation={activation!r}, start={start!r}"
            )
        super().__init__()
        self.join = join
        for name, gate in gates.items():
            self.add_module(name, gate)
        self._parts = tuple(gates)
        if join == "logits":
            activation = "sigmoid" if activation is None else activation
            self._check_raw(gates)
            if start == "identity":
                activation = _identity_activation("Par", activation)
                for gate in gates.values():
                    cast(Gate, gate).mix.zero_logits()
            self.activation = Activation(activation)

    @staticmethod
    def _check_raw(gates: dict[str, nn.Module]) -> None:
        for name, gate in gates.items():
            if not isinstance(gate, Gate) or gate.activation.name != "identity":
                raise ValueError(
                    'Par: expected every gate joined by its logits to be a Gate with activation="'
                    f'identity", got {name}={gate!r}'
                )

    def gate(self, x: Tensor) -> Tensor:
        """The joined gate, broadcast to the axes that any of the gates keeps."""
        gates = [getattr(self, part).gate(x) for part in self._parts]
        total: Tensor = gates[0]
        for gate in gates[1:]:
            total = total + gate if self.join == "logits" else total * gate
        if self.join == "logits":
            total = self.activation(total)
        return total

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        return apply_gate(x, self.gate(x))

    def extra_repr(self) -> str:
        """The join, for printing."""
        return f"join={self.join!r}"


def _check_gates(owner: str, gates: dict[str, nn.Module]) -> None:
    if not gates:
        raise ValueError(f"{owner}: expected at least one gate, got none")
    for name, gate in gates.items():
        if hasattr(Seq, name) or hasattr(Par, name):
            raise ValueError(f"{owner}: expected names that modules don't use, got {name!r}")
        if not callable(getattr(gate, "gate", None)):
            raise ValueError(f"{owner}: expected gates, with a method gate(x), got {name}={gate!r}")


def _identity_activation(owner: str, activation: ActivationName) -> ActivationName:
    if activation != "sigmoid":
        raise ValueError(
            f'{owner}: expected start="identity" with activation="sigmoid", which it doubles, '
            f"got activation={activation!r}"
        )
    return "double_sigmoid"


def _without_autocast(x: Tensor) -> torch.autocast | nullcontext[None]:
    # Entered only where autocast is on: an idle context would still be a node in exported graphs.
    if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
