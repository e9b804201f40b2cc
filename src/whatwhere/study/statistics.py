"""Paired statistics over seeds: how large a difference is, how sure, and what may be claimed.

Variants are compared seed by seed, because a seed's split and order of batches move all variants
together: pairing takes that part out. Where several attention variants are compared, what may be
claimed is corrected for their number; docs/statistics.md has the whole method on one page.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from whatwhere.study.power import Power, power_of

LEVEL = 0.05  # of every family of claims: how often one of them may be false
# The same where seeds are added until the intervals are narrow. That stops at moments at which the
# spread is small by luck: intervals of 95% would then cover the truth in as little as 92%. Those of
# 97% cover it in 95% or more, by the simulations of benchmarks/coverage.
SURE_LEVEL = 0.03
SAME = 1e-9  # differences closer than this, relative to their size, are equal up to rounding

Results = Mapping[str, Any]
Family = Literal["over plain", "over control"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Paired:
    """A mean difference with its two-sided paired t interval.

    Attributes:
        mean: of the differences.
        deviation: their standard deviation; None for a single pair.
        low: end of the interval; None without one, for a single pair or equal differences. Equal
            differences have a spread of 0, which says that the measure is too coarse to show the
            true spread, not that the difference is exact.
        high: the other end.
        p_value: of the two-sided paired t-test, None where ``low`` is.
        pairs: how many.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    p_value: float | None
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """One variant against another: accuracy in points, over the seeds that both finished.

    Attributes:
        variant, against, metric: what is compared.
        seeds: those that both finished.
        differences: of each seed, in points.
        paired: their mean, with an interval that by itself covers the truth in 95% of studies.
        family: with which other comparisons this one is corrected: those of all attention variants
            with the plain network, or those with a control; None for a control's own.
        family_size: how many comparisons that family has, this one included.
        p_adjusted: the least level at which Holm's procedure for the family claims a difference.
            The claim "over control" is that the variant differs from the plain network *and* from
            the control, so its p-value is the larger of the two. None where there is no interval.
        level: what ``p_adjusted`` is held against, and 1 minus the nominal confidence of the
            interval: 0.05, or 0.03 if seeds were added until sure.
        shown: whether ``p_adjusted`` is at most ``level``. A difference that is shown has an
            interval without 0; one whose interval is without 0 may not be shown.
    """

    variant: str
    against: str
    metric: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    paired: Paired
    family: Family | None
    family_size: int
    p_adjusted: float | None
    level: float
    shown: bool

    def power(self) -> Power | None:
        """What these seeds could have shown; None for a single pair or equal differences.

        At the level divided by the size of the family, which suffices whatever the others do.
        """
        if self.paired.low is None or self.paired.deviation is None:
            return None
        return power_of(
            self.paired.mean,
            self.paired.deviation,
            self.paired.pairs,
            level=self.level / self.family_size,
        )

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values, for JSON."""
        power = self.power()
        return {**asdict(self), "power": None if power is None else asdict(power)}


def paired(differences: Sequence[float], *, confidence: float = 1 - LEVEL) -> Paired:
    """The mean of paired differences and its t interval.

    >>> found = paired([1.0, 2.0, 3.0])
    >>> round(found.mean, 2), round(found.low, 2), round(found.high, 2)
    (2.0, -0.48, 4.48)

    Raises:
        ValueError: no differences, or some that are not finite.
    """
    [found] = paired_rows([differences], confidence=confidence)
    return found


def paired_rows(rows: Sequence[Sequence[float]], *, confidence: float = 1 - LEVEL) -> list[Paired]:
    """``paired`` for each row; rows of one length in one call of SciPy's, which costs most.

    Raises:
        ValueError: a row without differences, or with some that are not finite.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"paired: expected confidence between 0 and 1, got {confidence}")
    found: list[Paired] = []
    varied: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        if not row or not all(math.isfinite(each) for each in row):
            raise ValueError(f"paired: expected finite differences, got {list(row)}")
        found.append(_without_interval(row))
        if max(row) - min(row) > SAME * max(abs(each) for each in row):
            varied.setdefault(len(row), []).append(index)
    for indices in varied.values():
        values = np.array([rows[index] for index in indices])
        test = stats.ttest_1samp(values, 0.0, axis=1)
        ends = test.confidence_interval(confidence)
        columns = (values.std(axis=1, ddof=1), ends.low, ends.high, test.pvalue)
        for index, *numbers in zip(indices, *columns, strict=True):
            deviation, low, high, p_value = map(float, numbers)
            found[index] = replace(
                found[index], deviation=deviation, low=low, high=high, p_value=p_value
            )
    return found


def _without_interval(row: Sequence[float]) -> Paired:
    return Paired(
        mean=math.fsum(row) / len(row),
        deviation=None if len(row) == 1 else 0.0,
        low=None,
        high=None,
        p_value=None,
        pairs=len(row),
    )


def compare_variants(results: Results) -> list[Comparison]:
    """Every attention and control variant against the baseline, then attention against control.

    Accuracy is in points, 100 times the share; a pair is a seed that both variants finished, and
    variants without a pair are left out.
    """
    level = LEVEL if results["settings"].get("until_sure") is None else SURE_LEVEL
    families = _families(results)
    differences = _differences(results, families)
    rows = paired_rows([list(each.values()) for each in differences.values()], confidence=1 - level)
    found = dict(zip(differences, rows, strict=True))
    corrected = _corrected(families, found)
    return [
        Comparison(
            *pair,
            metric="accuracy",
            seeds=tuple(differences[pair]),
            differences=tuple(differences[pair].values()),
            paired=each,
            family=families[pair],
            family_size=corrected[pair][1],
            p_adjusted=corrected[pair][0],
            level=level,
            shown=_at_most(corrected[pair][0], level),
        )
        for pair, each in found.items()
    ]


def accuracies(results: Results, variant: str) -> dict[int, float]:
    """Test accuracy in points of the finished trials of a variant, by seed."""
    return {
        trial["seed"]: 100 * trial["test"]["accuracy"]
        for trial in results["trials"]
        if trial["variant"] == variant and trial["status"] == "finished"
    }


def _families(results: Results) -> dict[Pair, Family | None]:
    """What is compared with what, and with which others that is corrected."""
    names: dict[str, list[str]] = {"baseline": [], "attention": [], "control": []}
    for variant in results["variants"]:
        names[variant["role"]].append(variant["name"])
    found: dict[Pair, Family | None] = {}
    for baseline in names["baseline"]:
        found |= {(name, baseline): "over plain" for name in names["attention"]}
        found |= {(name, baseline): None for name in names["control"]}
    for control in names["control"]:
        found |= {(name, control): "over control" for name in names["attention"]}
    return found


def _differences(results: Results, pairs: Iterable[Pair]) -> dict[Pair, dict[int, float]]:
    """By seed, of the pairs of variants that have a seed in common."""
    reached = {each["name"]: accuracies(results, each["name"]) for each in results["variants"]}
    found = {}
    for ours, theirs in pairs:
        shared = sorted(reached[ours].keys() & reached[theirs].keys())
        if shared:
            found[ours, theirs] = {
                seed: reached[ours][seed] - reached[theirs][seed] for seed in shared
            }
    return found


def _corrected(
    families: Mapping[Pair, Family | None], found: Mapping[Pair, Paired]
) -> dict[Pair, tuple[float | None, int]]:
    """Holm's p-value of each comparison within its family, and the family's size."""
    values = {pair: each.p_value for pair, each in found.items()}
    over_plain = {pair[0]: values[pair] for pair in found if families[pair] == "over plain"}
    corrected: dict[Pair, tuple[float | None, int]] = dict.fromkeys(found, (None, 1))
    for family in ("over plain", "over control"):
        own = {pair: values[pair] for pair in found if families[pair] == family}
        if family == "over control":  # a claim to differ from both
            own = {pair: _larger(value, over_plain.get(pair[0])) for pair, value in own.items()}
        # A comparison without an interval was tried too: it counts, with nothing shown.
        tried = [1.0 if value is None else value for value in own.values()]
        adjusted = multipletests(tried, method="holm")[1] if len(tried) > 1 else tried
        for (pair, value), each in zip(own.items(), adjusted, strict=True):
            corrected[pair] = (None if value is None else float(each), len(own))
    return corrected


def _larger(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)


def _at_most(value: float | None, level: float) -> bool:
    return value is not None and value <= level
