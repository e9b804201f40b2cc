"""What a diagnosis says: a record of each gate, what replacing it costs, and a table of both."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from whatwhere.gates import Kind
from whatwhere.look.pointing import Hits

State = Literal["live", "constant", "dead", "saturated", "unmoved"]
Advice = Literal["keep", "fold", "remove", "unsure"]


@dataclass(frozen=True)
class Cost:
    """The drop of the mean score when a gate is replaced: positive where the gate helps.

    Attributes:
        mean: of the drops, sample by sample.
        low: end of their 95% interval: Student's t over the samples' drops and two drops more, of
            plus and minus the span of the scores and 0 (1 if all are 0). With these, n samples
            that all keep their score say that the drop is below about 3 / n of the span, not that
            it is 0.
        high: the other end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f}, {self.high:+.4f})"


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
        deviation: the largest distance of any entry from its mean over inputs.
        low_fraction: entries below 2% of the activation's range.
        high_fraction: entries above 98% of it.
        moved: mean distance from the start value, 1 for 2σ and 0.5 for σ.
        state: "unmoved" (moved < 0.001), "dead" (mean below 2% of the range), "saturated" (at
            least 90% of the entries low or high), "constant" (spread_over_inputs < 0.001), else
            "live"; the first that holds.
        hits: the pointing game, where the truth is known.
        cost_of_mean: of replacing each entry by its mean over inputs: what it is worth that the
            gate looks at its input. None without targets.
        cost_of_one: of taking the gate out: what it is worth at all. None without targets.
        advice: "remove": taking it out costs nothing. "fold": it may not go, but its mean over
            inputs costs nothing. "keep": one of the two is seen to cost something, and its mean is
            not seen to cost nothing. "unsure": too few samples to say. A cost is nothing if even
            the high end of its interval is within the diagnosis' tolerance, and seen if its low
            end lies above 0. None without targets.
    """

    site: str
    kind: Kind
    mean: float
    spread: float
    spread_over_inputs: float
    deviation: float
    low_fraction: float
    high_fraction: float
    moved: float
    state: State
    hits: Hits | None
    cost_of_mean: Cost | None
    cost_of_one: Cost | None
    advice: Advice | None

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Diagnosis:
    """What ``diagnose`` found; print it, iterate over it, or index it.

    Attributes:
        gates: a record of each, in the order in which they first ran.
        inputs: how many inputs they ran on.
        score: mean score of the untouched network; None without targets.
        tolerance: a cost up to this is none.
    """

    gates: tuple[GateRecord, ...]
    inputs: int
    score: float | None
    tolerance: float

    def __iter__(self) -> Iterator[GateRecord]:
        return iter(self.gates)

    def __len__(self) -> int:
        return len(self.gates)

    def __getitem__(self, index: int) -> GateRecord:
        return self.gates[index]

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{len(self.gates)} gates over {self.inputs} inputs"]
        heading = ["gate", "kind", "state", "mean", "spread over inputs", "deviation"]
        rows = [
            [
                each.site,
                each.kind,
                each.state,
                f"{each.mean:.3f}",
                f"{each.spread_over_inputs:.4f}",
                f"{each.deviation:.4f}",
            ]
            for each in self.gates
        ]
        if self.score is not None:
            lines[0] += f", score {self.score:.4f}, a cost of {self.tolerance:g} is none"
            heading += ["cost of its mean (95%)", "cost of one (95%)", "advice"]
            for row, each in zip(rows, self.gates, strict=True):
                row += [str(each.cost_of_mean), str(each.cost_of_one), str(each.advice)]
        widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
        for row in (heading, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {'  '.join(cells)}".rstrip())
        return "\n".join(lines)


def advice(cost_of_mean: Cost, cost_of_one: Cost, tolerance: float) -> Advice:
    """What to do with a gate of these costs.

    >>> advice(Cost(0.02, 0.01, 0.03), Cost(0.05, 0.03, 0.07), 0.005)
    'keep'
    >>> advice(Cost(0.0, -0.004, 0.004), Cost(0.05, 0.03, 0.07), 0.005)
    'fold'
    """
    if cost_of_one.high <= tolerance:
        return "remove"
    if cost_of_mean.high <= tolerance:
        return "fold"
    seen = cost_of_mean.low > 0 or cost_of_one.low > 0
    return "keep" if seen else "unsure"
