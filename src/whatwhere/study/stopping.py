"""When a study that runs --until-sure has enough seeds: by the width of its intervals alone.

What the intervals show has no say: a study that stopped when a difference is shown would show
differences that are not there. The mean of normal differences is independent of their spread, so
stopping by the spread leaves the mean as it is. It does stop at moments at which the spread is
small by luck: that is why no study is sure by fewer than ``LEAST_PAIRS`` pairs, and why intervals
are computed at ``SURE_LEVEL``.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy import special

from whatwhere.study.settings import LEAST_PAIRS
from whatwhere.study.statistics import SURE_LEVEL, Comparison, Paired, Results

Reason = Literal["sure", "budget", "nothing to compare"]

GROWTH = 2  # a round brings the seeds to at most so many times those before


@dataclass(frozen=True)
class Progress:
    """Where a study stands after a round of seeds.

    Attributes:
        until_sure: half the width that every interval may have, in points.
        max_seeds: the budget.
        seeds: how many have been run.
        half_widths: of each attention variant's 95% interval over the plain network, in points;
            None without an interval. Variants without a pair are not waited for.
        pairs: that each of these has.
        next_seeds: how many to have after the next round; None to stop.
        reason: why it stops; None while it goes on.
    """

    until_sure: float
    max_seeds: int
    seeds: int
    half_widths: dict[str, float | None]
    pairs: dict[str, int]
    next_seeds: int | None
    reason: Reason | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def progress(
    comparisons: Sequence[Comparison], *, seeds: int, until_sure: float, max_seeds: int
) -> Progress:
    """Whether the intervals are narrow enough, and if not, how many seeds to have next.

    A round goes as far as the spread seen so far says is needed, and at most to twice the seeds.

    Args:
        comparisons: of ``compare_variants``.
        seeds: how many have been run.
        until_sure: half the width that every attention variant's interval may have, in points.
        max_seeds: run no more than these.
    """
    over_plain = [each for each in comparisons if each.family == "over plain"]
    missing = [_missing(each.paired, until_sure, max_seeds) for each in over_plain]
    reason: Reason | None = None
    following = None
    if not missing:
        reason = "nothing to compare"
    elif max(missing) == 0:
        reason = "sure"
    elif seeds >= max_seeds:
        reason = "budget"
    else:
        following = min(seeds + max(missing), GROWTH * seeds, max_seeds)
    return Progress(
        until_sure=until_sure,
        max_seeds=max_seeds,
        seeds=seeds,
        half_widths={each.variant: half_width(each.paired) for each in over_plain},
        pairs={each.variant: each.paired.pairs for each in over_plain},
        next_seeds=following,
        reason=reason,
    )


def half_width(paired: Paired) -> float | None:
    """Half the width of an interval; None without one."""
    if paired.low is None or paired.high is None:
        return None
    return (paired.high - paired.low) / 2


def _missing(paired: Paired, until_sure: float, most: int) -> int:
    """How many more pairs the interval needs, going by the spread so far, up to ``most``."""
    if paired.deviation is None or paired.low is None:
        return max(1, LEAST_PAIRS - paired.pairs)
    deviation = paired.deviation
    counts = range(max(paired.pairs, LEAST_PAIRS), paired.pairs + most)
    enough = bisect_left(counts, True, key=lambda pairs: _half(deviation, pairs) <= until_sure)
    return counts[enough] - paired.pairs if enough < len(counts) else most


def _half(deviation: float, pairs: int) -> float:
    half: float = special.stdtrit(pairs - 1, 1 - SURE_LEVEL / 2) * deviation / pairs**0.5
    return half


def stopping_text(results: Results) -> list[str]:
    """Why a study that ran --until-sure stopped, as a sentence; none for other studies."""
    stopped = results.get("stopping")
    if stopped is None:
        return []
    aim = f"--until-sure {stopped['until_sure']:g}: "
    if stopped["reason"] == "nothing to compare":
        return [f"{aim}stopped, because no seed finished with a gate and with the plain network."]
    if stopped["reason"] == "sure":
        return [
            f"{aim}after {stopped['seeds']} seeds every interval over the plain network is within "
            f"±{stopped['until_sure']:g} points."
        ]
    widths = [
        f"{name} {'no interval' if half is None else f'±{half:.2g} points'}"
        f" from {stopped['pairs'][name]} pairs"
        for name, half in stopped["half_widths"].items()
    ]
    return [f"{aim}not reached with --max-seeds {stopped['max_seeds']}: {', '.join(widths)}."]
