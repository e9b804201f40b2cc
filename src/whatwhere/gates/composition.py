"""Gates one after another, each on the output of the one before: ``Seq``."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.gates.algebra import LastPass, gated
from whatwhere.gates.shortcuts import as_cbam, is_plain_gate
from whatwhere.ops import apply_gate

RESERVED = ("activation", "kind", "neutral", "source", "trunk")  # of what holds gates


class Seq(nn.Module):
    """Gates one after another: each sees the output of the one before.

    >>> from whatwhere.gates import ChannelAttention, SpatialAttention
    >>> cbam = Seq(channel=ChannelAttention(32), spatial=SpatialAttention())
    >>> cbam(torch.ones(2, 32, 7, 7)).shape
    torch.Size([2, 32, 7, 7])
    """

    def __init__(self, **gates: nn.Module) -> None:
        check_gates("Seq", gates)
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
        waiting: dict[str, Tensor] = {}
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


def check_gates(owner: str, gates: dict[str, nn.Module]) -> None:
    """Refuse what has no method ``gate``, names that modules have use for, and nothing at all."""
    if not gates:
        raise ValueError(f"{owner}: expected at least one gate, got none")
    for name, gate in gates.items():
        if hasattr(Seq, name) or name in RESERVED:
            raise ValueError(f"{owner}: expected names that modules don't use, got {name!r}")
        if not callable(getattr(gate, "gate", None)):
            raise ValueError(f"{owner}: expected gates, with a method gate(x), got {name}={gate!r}")
