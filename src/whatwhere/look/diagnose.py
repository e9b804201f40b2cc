"""What the gates of a network do on data: their spread, their state, their worth.

Only running sums are kept, so any number of inputs can go through.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.evaluation import evaluating
from whatwhere.gates import Gate, Par
from whatwhere.look.ablation import Score, check_scipy, measure_costs, top1
from whatwhere.look.batches import Batch, batches, check_repeatable
from whatwhere.look.pointing import Hits, Pointing, Truth, pointing_for
from whatwhere.look.record import gates_in, record
from whatwhere.look.records import Cost, Diagnosis, GateRecord, State, advice
from whatwhere.look.sums import Sums

UNMOVED = 1e-3
CONSTANT = 1e-3
SATURATED = 0.9


def diagnose(
    model: nn.Module,
    data: Iterable[Any],
    *,
    score: Score | None = None,
    tolerance: float = 0.01,
    truth: Truth | None = None,
    shape: Sequence[int] | None = None,
) -> Diagnosis:
    """Measure every gate over data, in the order in which the gates first run.

    Where the data has targets, each gate is also replaced, alone, by its mean over the inputs and
    by one, and the scores are compared sample by sample: 2 × gates + 2 runs of the data. What
    several gates are worth together is not measured.

    The network is in evaluation mode meanwhile, and as it was afterwards.

    Args:
        model: the network, whose forward takes one tensor.
        data: batches of inputs (N, C, *S), or pairs of inputs and targets, as a DataLoader gives.
        score: of outputs and targets, one number per sample, higher is better; if not given, 1
            for a sample whose largest output (N, K) is its target (N,) and 0 for others.
        tolerance: a drop of the mean score that counts as none; see ``GateRecord.advice``.
        truth: the true places of the inputs, in their order; there may be more than inputs.
        shape: (C, *S), if every input has to have it.

    Raises:
        ValueError: no inputs, inputs of another shape, more inputs than true places, data with
            targets that can be gone through once only, a score that does not fit, or a gate
            with NaN, as of a network that diverged.
        ImportError: there are targets, and no scipy.

    >>> from whatwhere import CBAM
    >>> cbam = CBAM(8, start="identity")
    >>> [(gate.kind, gate.state) for gate in diagnose(cbam, [torch.randn(4, 8, 6, 6)])]
    [('what', 'unmoved'), ('where', 'unmoved')]
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"diagnose: expected tolerance to be at least 0, got {tolerance!r}")
    gates = gates_in(model)
    costs: dict[str, tuple[Cost, Cost]] = {}
    mean_score: float | None = None
    # Code that was compiled before would not run the hooks that look, and those that replace.
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        seen = _Seen(gates, truth)
        for batch in batches("diagnose", model, data):
            _check_batch(batch, shape)
            if seen.inputs == 0:
                seen.labelled = _check_targets(batch, data, score)
            elif seen.labelled is (batch.targets is None):
                raise ValueError("diagnose: expected all batches to have targets, or none")
            with record(model) as recorded:
                model(batch.inputs)
            seen.add(recorded, len(batch.inputs))
        seen.check()
        if seen.labelled:
            means = {site: sums.mean() for site, sums in seen.sums.items()}
            again = batches("diagnose", model, data)
            judge = top1 if score is None else score
            mean_score, costs = measure_costs(model, again, gates, means, judge)
    records = [
        _record(sums, seen.hits(site), costs.get(site), tolerance)
        for site, sums in seen.sums.items()
    ]
    return Diagnosis(tuple(records), seen.inputs, mean_score, tolerance)


class _Seen:
    """What the first run of the data shows."""

    def __init__(self, gates: Mapping[str, Gate | Par], truth: Truth | None) -> None:
        self.gates = gates
        self.truth = truth
        self.sums: dict[str, Sums] = {}
        self.pointings: dict[str, Pointing | None] = {}
        self.inputs = 0
        self.labelled = False

    def add(self, recorded: Mapping[str, Sequence[Tensor]], inputs: int) -> None:
        """Take in the gates of so many inputs more."""
        for site, calls in recorded.items():
            if site not in self.sums:
                gate, truth = self.gates[site], self.truth
                self.sums[site] = Sums(site, gate, owner="diagnose")
                self.pointings[site] = None if truth is None else pointing_for(gate.kind, truth)
            pointing = self.pointings[site]
            for call in calls:
                self.sums[site].add(call)
                if pointing is not None:
                    pointing.add(call.to("cpu", torch.float64), self.inputs)
        self.inputs += inputs

    def check(self) -> None:
        """Refuse to go on with nothing."""
        if self.inputs == 0:
            raise ValueError("diagnose: expected at least one input, got none")
        if not self.sums:
            raise ValueError(
                f"diagnose: expected a network with gates that run, got one with "
                f"{len(self.gates)} gates, none of which ran"
            )

    def hits(self, site: str) -> Hits | None:
        """The pointing game of a gate, where it is played."""
        pointing = self.pointings[site]
        return None if pointing is None else pointing.hits()


def _check_batch(batch: Batch, shape: Sequence[int] | None) -> None:
    got = tuple(batch.inputs.shape)
    if shape is not None and got[1:] != tuple(shape):
        raise ValueError(
            f"diagnose: expected inputs of shape (N, {', '.join(map(str, shape))}), got {got}"
        )


def _check_targets(batch: Batch, data: Iterable[Any], score: Score | None) -> bool:
    if batch.targets is None:
        if score is not None:
            raise ValueError("diagnose: expected targets for the score, got inputs alone")
        return False
    check_repeatable("diagnose", data, "for the means first and the costs then")
    check_scipy()
    return True


def _record(
    sums: Sums, hits: Hits | None, costs: tuple[Cost, Cost] | None, tolerance: float
) -> GateRecord:
    """What the sums say."""
    shift = sums.sum.sum().item() / sums.entries
    variance = sums.squares.sum().item() / sums.entries - shift**2
    variances = sums.squares / sums.inputs - (sums.sum / sums.inputs).square()
    spread_over_inputs = variances.clamp(min=0).sqrt().mean().item()
    of_mean, of_one = (None, None) if costs is None else costs
    return GateRecord(
        site=sums.site,
        kind=sums.kind,
        mean=sums.start + shift,
        spread=math.sqrt(max(variance, 0.0)),
        spread_over_inputs=spread_over_inputs,
        deviation=sums.deviation(),
        low_fraction=sums.low / sums.entries,
        high_fraction=sums.high / sums.entries,
        moved=sums.moved,
        state=_state(sums, sums.start + shift, spread_over_inputs),
        hits=hits,
        cost_of_mean=of_mean,
        cost_of_one=of_one,
        advice=None if costs is None else advice(*costs, tolerance),
    )


def _state(sums: Sums, mean: float, spread_over_inputs: float) -> State:
    if sums.moved < UNMOVED:
        return "unmoved"
    if sums.shuts and mean < sums.bottom:
        return "dead"
    if (sums.low + sums.high) / sums.entries >= SATURATED:
        return "saturated"
    if spread_over_inputs < CONSTANT:
        return "constant"
    return "live"
