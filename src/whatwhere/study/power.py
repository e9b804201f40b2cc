"""What a number of seeds can show: the least difference, and how many seeds a difference needs."""

from bisect import bisect_left
from dataclasses import dataclass

from scipy import optimize, stats

ASKED_POWER = 0.8
MAX_PAIRS = 1000  # more seeds than this are not asked for


@dataclass(frozen=True)
class Power:
    """What paired differences of an observed spread can show, with a power of 80%.

    The spread is an estimate: of three pairs its square is, 19 times in 20, between a fortieth and
    3.7 times the true one, and these numbers are no surer than that.

    Attributes:
        detectable: the least true difference, of either sign, that this many pairs show in 80% of
            studies, in the unit of the differences.
        pairs_needed: how many pairs show a true difference as large as the one observed; None if
            more than 1000.
    """

    detectable: float
    pairs_needed: int | None


def power_of(mean: float, deviation: float, pairs: int, *, level: float = 0.05) -> Power:
    """What a two-sided paired t-test at a level shows.

    >>> found = power_of(2.0, 1.0, 3)
    >>> round(found.detectable, 2), found.pairs_needed
    (3.26, 5)

    Args:
        mean: of the differences.
        deviation: their standard deviation, above 0.
        pairs: how many differences, at least 2.
        level: of the test.
    """
    return Power(deviation * detectable(pairs, level), _pairs_needed(abs(mean) / deviation, level))


def detectable(pairs: int, level: float) -> float:
    """The difference, in standard deviations of the differences, that is shown with 80% power."""
    high = 1.0
    while power(high, pairs, level) < ASKED_POWER:
        high *= 2
    found: float = optimize.brentq(
        lambda effect: power(effect, pairs, level) - ASKED_POWER, 0.0, high
    )
    return found


def power(effect: float, pairs: int, level: float) -> float:
    """The chance that a difference of so many standard deviations is shown."""
    # t² is F with (1, pairs - 1) degrees of freedom, and t is not used: SciPy's noncentral t, and
    # with it statsmodels' TTestPower, is NaN for large effects (5.6 with 2 pairs). SciPy's
    # noncentral F is wrong at noncentrality 0, where the power is the level.
    if effect == 0:
        return level
    critical = stats.f.isf(level, 1, pairs - 1)
    return float(stats.ncf.sf(critical, 1, pairs - 1, pairs * effect**2))


def _pairs_needed(effect: float, level: float) -> int | None:
    # Power grows with the pairs, so the first count that has enough is found by halving.
    counts = range(2, MAX_PAIRS + 1)
    at = bisect_left(counts, ASKED_POWER, key=lambda pairs: power(effect, pairs, level))
    return counts[at] if at < len(counts) else None
