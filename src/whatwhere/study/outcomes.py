"""What may be claimed of each attention variant: the decisions that the verdict puts in words."""

from collections.abc import Sequence
from typing import Literal

from whatwhere.study.statistics import Comparison, Results

Outcome = Literal[
    "worth it",
    "helps, lead unshown",
    "helps, unexplained",
    "explained",
    "hurts",
    "unshown",
    "no interval",
    "missing",
]
HELPS: tuple[Outcome, ...] = (
    "worth it",
    "helps, lead unshown",
    "helps, unexplained",
    "explained",
)


def outcomes(results: Results, comparisons: Sequence[Comparison]) -> dict[str, Outcome]:
    """The outcome of every attention variant, from ``compare_variants``.

    - "hurts", and each of ``HELPS``: shown to be worse, or better, than the plain network. With no
      true difference at all, 5 studies in 100 claim any of them.
    - "worth it": shown to be better than the plain network and than the control. Where that is
      false of every variant, 5 studies in 100 claim it.
    - "explained": shown to be better than the plain network and worse than the control.
    - "helps, lead unshown": neither; "helps, unexplained": there is no finished control.
    - "no interval": one pair, or equal differences; "missing": no seed finished with both.
    """
    names = {
        role: [variant["name"] for variant in results["variants"] if variant["role"] == role]
        for role in ("baseline", "attention", "control")
    }
    found = {(each.variant, each.against): each for each in comparisons}
    decided: dict[str, Outcome] = {}
    for name in names["attention"]:
        over_plain, over_control = (
            [found[name, other] for other in names[role] if (name, other) in found]
            for role in ("baseline", "control")
        )
        decided[name] = _outcome(over_plain[0], over_control) if over_plain else "missing"
    return decided


def _outcome(over_plain: Comparison, over_control: Sequence[Comparison]) -> Outcome:
    if over_plain.paired.low is None:
        return "no interval"
    if not over_plain.shown:
        return "unshown"
    if over_plain.paired.mean < 0:
        return "hurts"
    if not over_control:
        return "helps, unexplained"
    if all(each.shown and each.paired.mean > 0 for each in over_control):
        return "worth it"
    if any(each.shown and each.paired.mean < 0 for each in over_control):
        return "explained"
    return "helps, lead unshown"
