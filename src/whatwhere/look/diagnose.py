"""What the gates of a network do on data: their spread, their state, and whether they point right.

Only running sums are kept, so any number of inputs can go through.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whatwhere.evaluation import evaluating
from whatwhere.gates import Gate, Kind, Par
from whatwhere.look.pointing import Hits, Pointing, Truth, pointing_for
from whatwhere.look.record import gates_in, record

State = Literal["live", "constant", "dead", "saturated", "unmoved"]

TOP = {"sigmoid": 1.0, "double_sigmoid": 2.0}
START = {"sigmoid": 0.5, "double_sigmoid": 1.0}

EDGE = 0.02  # of the range: below it an entry is low, above 1 - EDGE it is high
UNMOVED = 1e-3
CONSTANT = 1e-3
SATURATED = 0.9


@dataclass(frozen=True)
class GateRecord:
    """One gate over all inputs.

    Attributes:
        site: qualified name of the gate in the network.
        kind: "what", "where", "when" or "joint".
        mean: of all entries.
        spread: standard deviation over inputs and positions.
        spread_over_inputs: standard deviation over inputs, of each entry, averaged over entries:
            0 for a gate that does the same to every input.
        low_fraction: entries below 2% of the activation's range.
        high_fraction: entries above 98% of it.
        moved: mean distance from the start value, 1 for 2σ and 0.5 for σ.
        state: "unmoved" (moved < 0.001), "dead" (mean below 2% of the range), "saturated" (at
            least 90% of the entries low or high), "constant" (spread_over_inputs < 0.001), else
            "live"; the first that holds.
        hits: the pointing game, where the truth is known.
    """

    site: str
    kind: Kind
    mean: float
    spread: float
    spread_over_inputs: float
    low_fraction: float
    high_fraction: float
    moved: float
    state: State
    hits: Hits | None

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values, for JSON."""
        return asdict(self)


def diagnose(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    truth: Truth | None = None,
    shape: Sequence[int] | None = None,
) -> list[GateRecord]:
    """Measure every gate over batches of inputs, in the order in which the gates run.

    The network is in evaluation mode meanwhile, and as it was afterwards.

    Args:
        model: the network.
        batches: input tensors (N, C, *S), on the network's device.
        truth: the true places of the inputs, in their order; there may be more than inputs.
        shape: (C, *S), if every input has to have it.

    Raises:
        ValueError: no inputs, inputs of another shape, more inputs than true places, or a gate
            with NaN, as of a network that diverged.

    >>> from whatwhere import CBAM
    >>> cbam = CBAM(8, start="identity")
    >>> [(gate.kind, gate.state) for gate in diagnose(cbam, [torch.randn(4, 8, 6, 6)])]
    [('what', 'unmoved'), ('where', 'unmoved')]
    """
    gates = gates_in(model)
    sums: dict[str, _Sums] = {}
    first = 0
    with evaluating(model):
        for batch in batches:
            if shape is not None and tuple(batch.shape[1:]) != tuple(shape):
                raise ValueError(
                    f"diagnose: expected inputs of shape (N, {', '.join(map(str, shape))}), "
                    f"got {tuple(batch.shape)}"
                )
            with record(model) as recorded:
                model(batch)
            for site, calls in recorded.items():
                if site not in sums:
                    sums[site] = _Sums(site, gates[site], truth)
                for call in calls:
                    sums[site].add(call.to("cpu", torch.float64), first)
            first += batch.shape[0]
    if first == 0:
        raise ValueError("diagnose: expected at least one input, got none")
    if not sums:
        raise ValueError(
            f"diagnose: expected a network with gates that run, got one with {len(gates)} gates, "
            "none of which ran"
        )
    return [each.record() for each in sums.values()]


class _Sums:
    """Running sums of one gate, of its distance from the start, which keeps them exact."""

    def __init__(self, site: str, gate: Gate | Par, truth: Truth | None) -> None:
        self.site = site
        self.kind: Kind = gate.kind
        self.top = TOP[gate.activation.name]
        self.start = START[gate.activation.name]
        self.pointing: Pointing | None = None if truth is None else pointing_for(gate.kind, truth)
        self.inputs = 0
        self.sum = torch.zeros(())
        self.squares = torch.zeros(())
        self.distance = 0.0
        self.low = 0
        self.high = 0

    def add(self, gate: Tensor, first: int) -> None:
        """Take in the gate (N, ...) of the inputs that begin at number ``first``."""
        if self.inputs and self.sum.shape != gate.shape[1:]:
            raise ValueError(
                f"diagnose: expected {self.site} to have one shape for all inputs, got "
                f"{tuple(self.sum.shape)} and {tuple(gate.shape[1:])}"
            )
        if not gate.isfinite().all():
            raise ValueError(
                f"diagnose: expected {self.site} to give finite gates, got "
                f"{int((~gate.isfinite()).sum())} NaN or infinite entries"
            )
        shifted = gate - self.start
        self.inputs += gate.shape[0]
        self.sum = self.sum + shifted.sum(0)
        self.squares = self.squares + shifted.square().sum(0)
        self.distance += shifted.abs().sum().item()
        self.low += int((gate < EDGE * self.top).sum())
        self.high += int((gate > (1 - EDGE) * self.top).sum())
        if self.pointing is not None:
            self.pointing.add(gate, first)

    def record(self) -> GateRecord:
        """What the sums say."""
        entries = self.inputs * self.sum.numel()
        shift = self.sum.sum().item() / entries
        variance = self.squares.sum().item() / entries - shift**2
        variances = self.squares / self.inputs - (self.sum / self.inputs).square()
        spread_over_inputs = variances.clamp(min=0).sqrt().mean().item()
        return GateRecord(
            site=self.site,
            kind=self.kind,
            mean=self.start + shift,
            spread=math.sqrt(max(variance, 0.0)),
            spread_over_inputs=spread_over_inputs,
            low_fraction=self.low / entries,
            high_fraction=self.high / entries,
            moved=self.distance / entries,
            state=self._state(self.start + shift, spread_over_inputs),
            hits=None if self.pointing is None else self.pointing.hits(),
        )

    def _state(self, mean: float, spread_over_inputs: float) -> State:
        entries = self.inputs * self.sum.numel()
        if self.distance / entries < UNMOVED:
            return "unmoved"
        if mean < EDGE * self.top:
            return "dead"
        if (self.low + self.high) / entries >= SATURATED:
            return "saturated"
        if spread_over_inputs < CONSTANT:
            return "constant"
        return "live"
