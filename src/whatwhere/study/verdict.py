"""What a finished study says, in plain words, and nothing that its numbers don't carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whatwhere.study.outcomes import Outcome, outcomes
from whatwhere.study.power import MAX_PAIRS
from whatwhere.study.statistics import (
    Comparison,
    Paired,
    Results,
    accuracies,
    compare_variants,
)
from whatwhere.study.stopping import stopping_text

LARGEST = 100.0  # points: no difference of accuracies is larger
NOISY = 0.15  # latency intervals wider than this share of the plain network's time say little
FIRST_LOOK = "A first look (--fast), not a verdict"
HEADLINES: tuple[tuple[Outcome, str], ...] = (
    ("worth it", "{} worth it on this data"),
    (
        "helps, lead unshown",
        "{} better than the plain network, but not shown to be better than one of the same cost",
    ),
    ("helps, unexplained", "{} better than the plain network, by what isn't settled"),
    ("explained", "{} better than the plain network, but worse than one of the same cost"),
    ("hurts", "{} worse than the plain network"),
    ("unshown", "no difference could be shown for {}"),
    ("no interval", "too few or too coarse results to judge {}"),
    ("missing", "no finished comparison for {}"),
)


@dataclass(frozen=True)
class Verdict:
    """One line, and the sentences behind it."""

    headline: str
    sentences: list[str]

    def __str__(self) -> str:
        return "\n".join([self.headline, *self.sentences])


def verdict(results: Results) -> Verdict:
    """Judge every attention variant of a study, as ``outcomes`` decides."""
    comparisons = compare_variants(results)
    decided = outcomes(results, comparisons)
    baselines = _of_role(results, "baseline")
    sentences = []
    for variant in _of_role(results, "attention"):
        name = variant["name"]
        own = [each for each in comparisons if each.variant == name]
        over_plain = [each for each in own if each.family == "over plain"]
        if over_plain:
            cost = _cost(variant, baselines[0])
            rivals = [each for each in own if each.family == "over control"]
            sentences.append(f"{name}: {_sentence(decided[name], over_plain[0], cost, rivals)}")
        else:
            sentences.append(f"{name}: no seed finished with it and with the plain network.")
    return Verdict(_headline(results, decided), sentences + _caveats(results))


def points(*values: float) -> list[str]:
    """Signed points, with a second decimal where a value other than 0 would be shown as 0.0.

    >>> points(1.84, 0.6), points(0.3, -0.02)
    (['+1.8', '+0.6'], ['+0.30', '-0.02'])
    """
    digits = 2 if any(0 < abs(value) < 0.05 for value in values) else 1
    return [f"{round(value, digits) + 0.0:+.{digits}f}" for value in values]


def interval_text(found: Comparison) -> str:
    """The difference with its interval, and its p-value where that is corrected.

    "+1.8 points (95% CI +0.6 to +3.0, 3 seeds, corrected p 0.012)"
    """
    paired = found.paired
    if paired.low is None or paired.high is None:
        return f"{points(paired.mean)[0]} points ({_seeds(paired.pairs)}, no interval)"
    mean, low, high = points(paired.mean, paired.low, paired.high)
    parts = [f"95% CI {low} to {high}", _seeds(paired.pairs)]
    if found.family_size > 1 and found.p_adjusted is not None:
        parts.append(f"corrected p {p_text(found.p_adjusted)}")
    return f"{mean} points ({', '.join(parts)})"


def p_text(value: float) -> str:
    """A p-value as text.

    >>> p_text(0.0123), p_text(0.0512), p_text(0.00004), p_text(1.0)
    ('0.012', '0.051', '<0.001', '1')
    """
    if value < 0.001:
        return "<0.001"
    return f"{value:.2g}" if value < 0.0995 else f"{value:.2f}".rstrip("0").rstrip(".")


def _sentence(outcome: Outcome, found: Comparison, cost: str, rivals: Sequence[Comparison]) -> str:
    start = f"{interval_text(found)} against the plain network{cost}"
    if outcome == "no interval":
        return f"{_without_interval(found.paired)}{cost}."
    if outcome == "hurts":
        return f"{start}: it hurts."
    if outcome == "unshown":
        return f"no difference could be shown: {start}{_chance(found)}.{_power(found)}"
    if outcome == "helps, unexplained":
        return (
            f"{start}: it helps, but without a finished control of the same cost it isn't known "
            "whether attention is what helps."
        )
    hardest = min(rivals, key=lambda rival: rival.paired.mean)
    lead = f"{interval_text(hardest)} against {hardest.against}"
    if outcome == "worth it":
        return f"{start}, and {lead}: worth it."
    if outcome == "explained":
        return f"{start}, but {lead}, which does better without attention: not worth it."
    return (
        f"{start}: it helps, but {lead} does not show that attention is what helps"
        f"{_chance(hardest)}.{_power(hardest)}"
    )


def _chance(found: Comparison) -> str:
    """Why a difference isn't shown whose own interval leaves out 0."""
    paired = found.paired
    if found.shown or paired.low is None or paired.high is None or paired.low <= 0 <= paired.high:
        return ""
    return (
        f". Its own interval leaves out 0, but that of one of {found.family_size} variants does so "
        "by chance more often than 1 time in 20"
    )


def _power(found: Comparison) -> str:
    """What these seeds could have shown, and how many the observed difference needs."""
    power = found.power()
    if power is None:
        return ""
    seeds = _seeds(found.paired.pairs)
    if power.detectable > LARGEST:
        could = f"{seeds} that differ so much can hardly show any difference"
    else:
        [least] = points(power.detectable)
        could = f"With {seeds} a difference of about {least[1:]} points is shown 4 times in 5"
    needed = power.pairs_needed
    many = f"more than {MAX_PAIRS}" if needed is None else f"about {needed}"
    return f" {could}; one of the size seen would take {many} seeds."


def _without_interval(found: Paired) -> str:
    [mean] = points(found.mean)
    if found.pairs == 1:
        return f"{mean} points against the plain network with one seed, which gives no interval"
    return (
        f"exactly {mean} points against the plain network with each of {_seeds(found.pairs)}; "
        "equal differences give no interval"
    )


def _cost(variant: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    parts = []
    ratio = variant["latency_ratio"]
    if ratio is not None:
        percent = 100 * (ratio["median"] - 1)
        if ratio["high"] - ratio["low"] > NOISY:
            spread = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
            parts.append(f"speed measured too noisily to say (time x{spread})")
        elif ratio["low"] <= 1 <= ratio["high"]:
            parts.append("no change of speed beyond the noise")
        else:
            parts.append(f"{abs(percent):.0f}% {'slower' if percent > 0 else 'faster'}")
    more = 100 * (variant["parameters"] / baseline["parameters"] - 1)
    parts.append(f"{more:+.1f}% parameters")
    return "".join(f", {part}" for part in parts)


def _of_role(results: Results, role: str) -> list[Mapping[str, Any]]:
    return [variant for variant in results["variants"] if variant["role"] == role]


def _headline(results: Results, outcomes: Mapping[str, Outcome]) -> str:
    phrases = []
    for outcome, phrase in HEADLINES:
        names = [name for name, found in outcomes.items() if found == outcome]
        if names and phrase.startswith("{}"):
            phrases.append(phrase.format(f"{_listed(names)} {'are' if names[1:] else 'is'}"))
        elif names:
            phrases.append(phrase.format(_listed(names)))
    if not phrases:
        phrases = ["no attention variant was studied"]
    if results["fast"]:
        phrases[0] = f"{FIRST_LOOK}: {phrases[0]}"
    elif not phrases[0].startswith(tuple(outcomes)):
        phrases[0] = phrases[0][0].upper() + phrases[0][1:]
    return "; ".join(phrases) + "."


def _caveats(results: Results) -> list[str]:
    found = stopping_text(results)
    if results["fast"]:
        found.append("This was a --fast run: little training on little data, a first look only.")
    if len(results["settings"]["seeds"]) == 1:
        found.append("One seed was run: nothing is known of how much the result varies.")
    trials = results["trials"]
    planned = len(results["variants"]) * len(results["settings"]["seeds"])
    for status in ("diverged", "failed"):
        which = [f"{t['variant']} with seed {t['seed']}" for t in trials if t["status"] == status]
        if which:
            found.append(f"Left out, of {planned} trials, as {status}: {_listed(which)}.")
    if len(trials) < planned:
        found.append(f"{planned - len(trials)} of {planned} trials have not been run.")
    return found + _chance_caveat(results)


def _chance_caveat(results: Results) -> list[str]:
    chance = 100 * results["data"]["chance_accuracy"]
    for baseline in _of_role(results, "baseline"):
        reached = list(accuracies(results, baseline["name"]).values())
        if reached and sum(reached) / len(reached) <= chance:
            return [
                f"The plain network is no better than always naming the largest class "
                f"({chance:.1f}%): it has learned nothing that a gate could help with."
            ]
    return []


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
