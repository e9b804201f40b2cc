"""Several gates as one: ``Seq`` one after another, ``Par`` side by side on the same x."""

from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from whatwhere.checks import check_choice
from whatwhere.gates.algebra import (
    STARTS,
    Activation,
    Gate,
    Keep,
    Kind,
    LastPass,
    Start,
    gated,
    identity_activation,
)
from whatwhere.gates.shortcuts import as_cbam, is_plain_gate
from whatwhere.ops import ActivationName, apply_gate


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

    def last_pass(self, x: Tensor) -> LastPass:
        """Compute what comes before the last pass: nothing, where ``ops.cbam`` is all of it."""
        parts: list[Any] = list(self._modules.values())
        whole = as_cbam(parts[0], parts[1], x) if len(parts) == 2 else None
        if whole is not None:
            return x, whole
        # Gates wait here to be applied, two in one pass where the second allows it: a gate over
        # positions after one over channels, which pools x · gate without writing it.
        waiting: dict[Keep, Tensor] = {}
        for part in parts:
            if not is_plain_gate(part):
                x, waiting = part(gated(x, waiting)), {}
            elif waiting and not (part.keep == "S" and set(waiting) == {"C"}):
                x = gated(x, waiting)
                waiting = {part.keep: part.values(x)}
            else:
                waiting[part.keep] = part.values(x, channel_gate=waiting.get("C"))
        return x, partial(gated, gates=waiting)

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        x, finish = self.last_pass(x)
        return finish(x)


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
                activation = identity_activation("Par", activation)
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
