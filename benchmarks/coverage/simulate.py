"""Counting over simulated studies: intervals that cover the truth, and claims that are false."""

import gc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.coverage.worlds import gains_of, studies
from whatwhere.study.outcomes import HELPS, outcomes
from whatwhere.study.statistics import Comparison, Results, compare_variants
from whatwhere.study.stopping import progress

Compare = Callable[[Results], list[Comparison]]


def fixed(
    world: str,
    truth: str,
    *,
    seeds: int,
    variants: int,
    count: int,
    compare: Compare = compare_variants,
) -> dict[str, Any]:
    """Studies of a fixed number of seeds.

    Returns:
        What was asked, and the counts that ``_count`` makes.
    """
    asked = {"world": world, "truth": truth, "seeds": seeds, "variants": variants}
    gains = gains_of(truth, variants)
    counts: Counter[str] = Counter()
    with _quick_collection():
        for results in studies(
            world, gains, seeds=seeds, count=count, random=np.random.default_rng(_seed(asked))
        ):
            _count(counts, results, compare(results), gains)
    return {**asked, "studies": count, **counts}


def until_sure(
    world: str,
    width: float,
    *,
    seeds: int,
    max_seeds: int,
    variants: int,
    count: int,
) -> dict[str, Any]:
    """Studies without any true difference that add seeds until their intervals are narrow.

    Args:
        world: a name of ``WORLDS``.
        width: half the width asked for, in points.
        seeds: of the first round.
        max_seeds: the budget.
        variants: attention variants.
        count: studies.
    """
    asked = {
        "world": world,
        "until_sure": width,
        "seeds": seeds,
        "max_seeds": max_seeds,
        "variants": variants,
    }
    gains = gains_of("none", variants)
    counts: Counter[str] = Counter()
    with _quick_collection():
        for whole in studies(
            world,
            gains,
            seeds=max_seeds,
            count=count,
            random=np.random.default_rng(_seed(asked)),
            until_sure=width,
        ):
            taken = seeds
            while True:
                results = _first_seeds(whole, taken)
                comparisons = compare_variants(results)
                now = progress(comparisons, seeds=taken, until_sure=width, max_seeds=max_seeds)
                if now.next_seeds is None:
                    break
                taken = now.next_seeds
            counts["seeds_taken"] += taken
            counts["sure"] += now.reason == "sure"
            _count(counts, results, comparisons, gains)
    return {**asked, "studies": count, **counts}


def simulate(cell: Mapping[str, Any]) -> dict[str, Any]:
    """``until_sure`` where the cell has a width, else ``fixed``."""
    return until_sure(**cell) if "width" in cell else fixed(**cell)


def _count(
    counts: Counter[str], results: Results, comparisons: Sequence[Comparison], gains: np.ndarray
) -> None:
    """Add one study.

    intervals, covering: of every attention variant over the plain network and over the control;
    and over the plain network alone, whose intervals --until-sure stops by.
    helps, hurts, worth: studies with a false claim of the kind, of any variant; false is "helps"
    of a variant that gains nothing, and "worth it" of one that gains no more than the control.
    uncorrected: studies in which the interval of any variant that gains nothing lies above 0.
    """
    names = [variant["name"] for variant in results["variants"]]
    gain = dict(zip(names, gains.tolist(), strict=True))
    uncorrected = False
    for each in comparisons:
        if each.family is None:
            continue
        if each.paired.low is None or each.paired.high is None:
            counts["without_interval"] += 1
            continue
        true = gain[each.variant] - gain[each.against]
        counts["intervals"] += 1
        covers = each.paired.low <= true <= each.paired.high
        counts["covering"] += covers
        if each.family == "over plain":
            counts["intervals_over_plain"] += 1
            counts["covering_over_plain"] += covers
        uncorrected |= each.family == "over plain" and true <= 0 < each.paired.low
    claimed = outcomes(results, comparisons)
    control = gain[names[-1]]
    counts["uncorrected"] += uncorrected
    counts["helps"] += any(gain[name] <= 0 for name, each in claimed.items() if each in HELPS)
    counts["hurts"] += any(gain[name] >= 0 for name, each in claimed.items() if each == "hurts")
    counts["worth"] += any(
        gain[name] <= max(0.0, control) for name, each in claimed.items() if each == "worth it"
    )


def _first_seeds(whole: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    return {**whole, "trials": [trial for trial in whole["trials"] if trial["seed"] < seeds]}


def _seed(asked: Mapping[str, Any]) -> int:
    return zlib.crc32(repr(sorted(asked.items())).encode())


@contextmanager
def _quick_collection() -> Iterator[None]:
    # statsmodels' Holm procedure collects garbage, which takes long with torch in memory.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
