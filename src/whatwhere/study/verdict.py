"""What a finished study says, in plain words, and nothing that its numbers don't carry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from whatwhere.study.statistics import (
    MAX_PAIRS,
    Comparison,
    Paired,
    Results,
    accuracies,
    compare_variants,
)

Outcome = Literal[
    "worth it", "helps, unexplained", "explained", "hurts", "unshown", "no interval", "missing"
]

NOISY = 0.15  # latency intervals wider than this share of the plain network's time say little
FIRST_LOOK = "A first look (--fast), not a verdict"
HEADLINES: tuple[tuple[Outcome, str], ...] = (
    ("worth it", "{} worth it on this data"),
    ("helps, unexplained", "{} better than the plain network, by what isn't settled"),
    ("explained", "{} no better than a plain network of the same cost"),
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
    """Judge every attention variant of a study.

    A variant is "worth it" only if its interval over the plain network is above 0 and the control
    of the same cost is not as good.
    """
    comparisons = compare_variants(results)
    baselines = _of_role(results, "baseline")
    controls = {control["name"] for control in _of_role(results, "control")}
    outcomes: dict[str, Outcome] = {}
    sentences = []
    for variant in _of_role(results, "attention"):
        name = variant["name"]
        rivals = [each for each in comparisons if each.variant == name and each.against in controls]
        outcome: Outcome = "missing"
        sentence = f"{name}: no seed finished with it and with the plain network."
        for baseline in baselines:
            for versus in comparisons:
                if (versus.variant, versus.against) == (name, baseline["name"]):
                    outcome, sentence = _judge(versus, _cost(variant, baseline), rivals)
        outcomes[name] = outcome
        sentences.append(sentence)
    return Verdict(_headline(results, outcomes), sentences + _caveats(results))


def points(*values: float) -> list[str]:
    """Signed points, with a second decimal where a value other than 0 would be shown as 0.0.

    >>> points(1.84, 0.6), points(0.3, -0.02)
    (['+1.8', '+0.6'], ['+0.30', '-0.02'])
    """
    digits = 2 if any(0 < abs(value) < 0.05 for value in values) else 1
    return [f"{round(value, digits) + 0.0:+.{digits}f}" for value in values]


def interval_text(paired: Paired) -> str:
    """The difference with its interval: "+1.8 points (95% CI +0.6 to +3.0, 3 seeds)"."""
    if paired.low is None or paired.high is None:
        return f"{points(paired.mean)[0]} points ({_seeds(paired.pairs)}, no interval)"
    mean, low, high = points(paired.mean, paired.low, paired.high)
    return f"{mean} points (95% CI {low} to {high}, {_seeds(paired.pairs)})"


def _judge(versus: Comparison, cost: str, rivals: list[Comparison]) -> tuple[Outcome, str]:
    name = versus.variant
    found = versus.paired
    start = f"{name}: {interval_text(found)} against the plain network{cost}"
    if found.low is None or found.high is None:
        return "no interval", f"{name}: {_without_interval(found)}{cost}."
    if found.high < 0:
        return "hurts", f"{start}: it hurts."
    if found.low <= 0:
        mean, low, high = points(found.mean, found.low, found.high)
        return (
            "unshown",
            f"{name}: no difference could be shown ({mean} points, 95% CI {low} to {high}, "
            f"{_seeds(found.pairs)}){cost}; {_seeds_needed(found)}",
        )
    return _judge_gain(start, rivals)


def _judge_gain(start: str, rivals: list[Comparison]) -> tuple[Outcome, str]:
    if not rivals:
        return (
            "helps, unexplained",
            f"{start}: it helps, but without a finished control of the same cost it isn't known "
            "whether attention is what helps.",
        )
    hardest = min(rivals, key=lambda rival: rival.paired.mean)
    lead = hardest.paired
    if lead.mean <= 0:
        return (
            "explained",
            f"{start}, but the control {hardest.against} does as well without attention "
            f"({interval_text(lead)} against it): not worth it.",
        )
    if lead.low is not None and lead.low > 0:
        return (
            "worth it",
            f"{start}, and {interval_text(lead)} against {hardest.against}: worth it.",
        )
    return (
        "worth it",
        f"{start}: worth it, though its lead over the control {hardest.against} of "
        f"{interval_text(lead)} isn't shown.",
    )


def _without_interval(found: Paired) -> str:
    [mean] = points(found.mean)
    if found.pairs == 1:
        return f"{mean} points against the plain network with one seed, which gives no interval"
    return (
        f"exactly {mean} points against the plain network with each of {_seeds(found.pairs)}; "
        "equal differences give no interval"
    )


def _seeds_needed(found: Paired) -> str:
    if found.pairs_needed is None:
        return f"to show one of this size would take more than {MAX_PAIRS} seeds."
    return f"about {found.pairs_needed} seeds would be needed to show one of this size."


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
    found = []
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
