"""Paired statistics over seeds: how large a difference is, and how sure.

Variants are compared seed by seed, because a seed's split and order of batches move all variants
together: pairing takes that part out.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

MAX_PAIRS = 1000  # more seeds than this are not asked for
ASKED_POWER = 0.8
SAME = 1e-9  # differences closer than this, relative to their size, are equal up to rounding

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Paired:
    """A mean difference with its two-sided paired t interval.

    Attributes:
        mean: of the differences.
        low: end of the interval; None without one, for a single pair or equal differences. Equal
            differences have a spread of 0, which says that the measure is too coarse to show the
            true spread, not that the difference is exact.
        high: the other end.
        p_value: of the two-sided paired t-test, None where ``low`` is.
        pairs: how many.
        power: the chance that this many pairs show a difference of the size observed.
        pairs_needed: how many pairs would show it with a power of 80%; None where ``low`` is None
            or if more than 1000 would be needed.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    pairs: int
    power: float | None
    pairs_needed: int | None


@dataclass(frozen=True)
class Comparison:
    """One variant against another: accuracy in points, over the seeds that both finished."""

    variant: str
    against: str
    metric: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    paired: Paired

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values, for JSON."""
        return asdict(self)


def paired(differences: Sequence[float], *, confidence: float = 0.95) -> Paired:
    """The mean of paired differences, its t interval and the power behind it.

    >>> found = paired([1.0, 2.0, 3.0])
    >>> round(found.mean, 2), round(found.low, 2), round(found.high, 2), found.pairs_needed
    (2.0, -0.48, 4.48, 5)

    Raises:
        ValueError: no differences, or some that are not finite.
    """
    if not differences or not all(math.isfinite(each) for each in differences):
        raise ValueError(f"paired: expected finite differences, got {list(differences)}")
    if not 0 < confidence < 1:
        raise ValueError(f"paired: expected confidence between 0 and 1, got {confidence}")
    pairs = len(differences)
    mean = math.fsum(differences) / pairs
    largest = max(abs(each) for each in differences)
    if pairs == 1 or max(differences) - min(differences) <= SAME * largest:
        return Paired(mean, None, None, None, pairs, None, None)
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(confidence)
    effect = abs(mean) / stats.tstd(differences)
    alpha = 1 - confidence
    return Paired(
        mean=mean,
        low=float(interval.low),
        high=float(interval.high),
        p_value=float(test.pvalue),
        pairs=pairs,
        power=_power(effect, pairs, alpha),
        pairs_needed=_pairs_needed(effect, alpha),
    )


def _power(effect: float, pairs: int, alpha: float) -> float:
    # t² is F with (1, pairs - 1) degrees of freedom, and t is not used: SciPy's noncentral t, and
    # with it statsmodels' TTestPower, is NaN for large effects (5.6 with 2 pairs). SciPy's
    # noncentral F is wrong at noncentrality 0, where the power is alpha.
    if effect == 0:
        return alpha
    critical = stats.f.isf(alpha, 1, pairs - 1)
    return float(stats.ncf.sf(critical, 1, pairs - 1, pairs * effect**2))


def _pairs_needed(effect: float, alpha: float) -> int | None:
    # Power grows with the pairs, so the first count that has enough is found by halving.
    counts = range(2, MAX_PAIRS + 1)
    at = bisect_left(counts, ASKED_POWER, key=lambda pairs: _power(effect, pairs, alpha))
    return counts[at] if at < len(counts) else None


def compare_variants(results: Results) -> list[Comparison]:
    """Every attention and control variant against the baseline, then attention against control.

    Accuracy is in points, 100 times the share; a pair is a seed that both variants finished, and
    variants without a pair are left out.
    """
    by_role: dict[str, list[str]] = {"baseline": [], "attention": [], "control": []}
    for variant in results["variants"]:
        by_role[variant["role"]].append(variant["name"])
    wanted = [
        (name, baseline)
        for baseline in by_role["baseline"]
        for name in by_role["attention"] + by_role["control"]
    ]
    wanted += [(name, control) for name in by_role["attention"] for control in by_role["control"]]
    found = [_compare(results, variant, against) for variant, against in wanted]
    return [each for each in found if each is not None]


def accuracies(results: Results, variant: str) -> dict[int, float]:
    """Test accuracy in points of the finished trials of a variant, by seed."""
    return {
        trial["seed"]: 100 * trial["test"]["accuracy"]
        for trial in results["trials"]
        if trial["variant"] == variant and trial["status"] == "finished"
    }


def _compare(results: Results, variant: str, against: str) -> Comparison | None:
    ours, theirs = accuracies(results, variant), accuracies(results, against)
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        return None
    differences = tuple(ours[seed] - theirs[seed] for seed in seeds)
    return Comparison(variant, against, "accuracy", seeds, differences, paired(differences))
