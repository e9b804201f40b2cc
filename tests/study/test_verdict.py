"""The verdict: each outcome, from accuracies chosen for it, and what it must not claim."""

import pytest
from results_fixture import build_results, fail, set_accuracies

from whatwhere.study.verdict import verdict

PLAIN = [90.0, 91.0, 92.0]
PAIR = ("plain", "cbam")
WITH_CONTROL = ("plain", "cbam", "wider")


def judged(cbam, *, wider=None, plain=PLAIN, **options):
    variants = PAIR if wider is None else WITH_CONTROL
    results = build_results(variants=variants, seeds=tuple(range(len(plain))), **options)
    set_accuracies(results, "plain", plain)
    set_accuracies(results, "cbam", cbam)
    if wider is not None:
        set_accuracies(results, "wider", wider)
    return results


def test_worth_it_when_above_the_plain_network_and_above_the_control():
    found = verdict(judged([92.0, 93.1, 93.9], wider=[90.1, 91.0, 92.1]))
    assert found.headline == "cbam is worth it on this data."
    assert found.sentences == [
        "cbam: +2.0 points (95% CI +1.8 to +2.2, 3 seeds) against the plain network, 9% slower, "
        "+1.2% parameters, and +1.9 points (95% CI +1.6 to +2.3, 3 seeds) against wider: worth it."
    ]


LEAD_UNSHOWN = (
    "cbam is better than the plain network, but not shown to be better than one of the same cost."
)


@pytest.mark.parametrize(
    ("wider", "lead"), [([90.1, 93.4, 93.0], "+0.8"), ([92.2, 93.1, 94.0], "-0.1")]
)
def test_a_lead_over_the_control_that_is_not_shown_is_not_worth_it(wider, lead):
    found = verdict(judged([92.0, 93.1, 93.9], wider=wider))
    assert found.headline == LEAD_UNSHOWN
    assert f"it helps, but {lead} points" in found.sentences[0]
    assert "against wider does not show that attention is what helps. With 3" in found.sentences[0]
    assert "worth it" not in str(found)


def test_a_control_that_is_better_takes_the_credit():
    found = verdict(judged([92.0, 93.1, 93.9], wider=[94.2, 95.1, 96.0]))
    assert found.headline == (
        "cbam is better than the plain network, but worse than one of the same cost."
    )
    assert "but -2.1 points" in found.sentences[0]
    assert found.sentences[0].endswith(": not worth it.")


def test_of_several_controls_the_hardest_to_beat_counts():
    results = build_results(variants=("plain", "cbam", "wider", "se"))
    results["variants"][3]["role"] = "control"
    for name, values in {"cbam": [92.0, 93.1, 93.9], "wider": PLAIN, "plain": PLAIN}.items():
        set_accuracies(results, name, values)
    set_accuracies(results, "se", [92.2, 93.1, 94.0])
    found = verdict(results)
    assert found.headline == LEAD_UNSHOWN
    assert "against se does not show" in found.sentences[0]
    results["variants"].reverse()
    assert verdict(results).sentences[0] == found.sentences[0]


@pytest.mark.parametrize("control", ["none", "failed"])
def test_without_a_control_no_credit_goes_to_attention(control):
    results = judged([92.0, 93.1, 93.9], wider=None if control == "none" else PLAIN)
    if control == "failed":
        for seed in range(3):
            fail(results, "wider", seed, status="failed")
    found = verdict(results)
    assert "by what isn't settled" in found.headline
    assert "without a finished control" in found.sentences[0]
    assert "worth it" not in str(found)


def test_no_difference_names_the_seeds_needed():
    found = verdict(judged([90.5, 90.9, 92.9]))
    assert found.headline == "No difference could be shown for cbam."
    assert found.sentences[0] == (
        "cbam: no difference could be shown: +0.4 points (95% CI -0.8 to +1.7, 3 seeds) against "
        "the plain network, 9% slower, +1.2% parameters. With 3 seeds a difference of about 1.6 "
        "points is shown 4 times in 5; one of the size seen would take about 13 seeds."
    )


def test_of_two_variants_one_that_differs_by_chance_is_not_said_to_help():
    results = build_results(variants=("plain", "cbam", "se"))
    set_accuracies(results, "plain", PLAIN)
    set_accuracies(results, "cbam", [92.0, 92.3, 93.2])
    set_accuracies(results, "se", [90.1, 91.1, 91.8])
    found = verdict(results)
    assert found.headline == "No difference could be shown for cbam and se."
    assert "(95% CI +0.4 to +2.6, 3 seeds, corrected p 0.054)" in found.sentences[0]
    assert "of 2 variants does so by chance more often than 1 time in 20." in found.sentences[0]
    assert "by chance" not in found.sentences[1]
    only = verdict(judged([92.0, 92.3, 93.2]))
    assert "it helps" in only.sentences[0]
    assert "corrected" not in only.sentences[0]


def test_seeds_that_can_show_nothing_say_so():
    found = verdict(judged([95.0, 70.0], plain=[90.0, 91.0]))
    assert "2 seeds that differ so much can hardly show any difference" in found.sentences[0]


STOPPED = {"until_sure": 0.5, "max_seeds": 8, "seeds": 8, "pairs": {"cbam": 8}, "next_seeds": None}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            {"reason": "sure", "half_widths": {"cbam": 0.4}},
            "after 8 seeds every interval over the plain network is within ±0.5 points.",
        ),
        (
            {"reason": "budget", "half_widths": {"cbam": 0.734}},
            "not reached with --max-seeds 8: cbam ±0.73 points from 8 pairs.",
        ),
        (
            {"reason": "budget", "half_widths": {"cbam": None}},
            "not reached with --max-seeds 8: cbam no interval from 8 pairs.",
        ),
        (
            {"reason": "nothing to compare", "half_widths": {}},
            "stopped, because no seed finished with a gate and with the plain network.",
        ),
    ],
)
def test_why_seeds_were_not_added_any_more(found, words):
    results = judged([92.0, 93.1, 93.9])
    results["stopping"] = {**STOPPED, **found}
    assert f"--until-sure 0.5: {words}" in verdict(results).sentences


def test_no_effect_needs_more_seeds_than_can_be_asked():
    found = verdict(judged([91.0, 90.0, 92.01]))
    assert "would take more than 1000 seeds" in found.sentences[0]


def test_it_hurts():
    found = verdict(judged([88.0, 89.1, 89.9]))
    assert found.headline == "cbam is worse than the plain network."
    assert found.sentences[0].endswith(": it hurts.")


def test_one_seed_has_no_interval():
    found = verdict(judged([95.0], wider=[90.0], plain=[90.0]))
    assert found.headline == "Too few or too coarse results to judge cbam."
    assert "+5.0 points against the plain network with one seed" in found.sentences[0]
    assert any(sentence.startswith("One seed was run") for sentence in found.sentences)
    assert "worth it" not in str(found)


def test_equal_differences_are_no_proof():
    found = verdict(judged([90.5, 91.5, 92.5], wider=PLAIN))
    assert "exactly +0.5 points against the plain network with each of 3 seeds" in str(found)
    assert "worth it" not in str(found)


def test_fast_is_a_first_look():
    found = verdict(judged([92.0, 93.1, 93.9], wider=PLAIN, fast=True))
    assert found.headline.startswith("A first look (--fast), not a verdict: cbam is")
    assert any("a first look only" in sentence for sentence in found.sentences)


def test_unfinished_trials_are_named():
    results = fail(judged([92.0, 93.1, 93.9], wider=PLAIN), "cbam", 1)
    fail(results, "plain", 2, status="failed")
    del results["trials"][-1]
    text = str(verdict(results))
    assert "Left out, of 9 trials, as diverged: cbam with seed 1." in text
    assert "Left out, of 9 trials, as failed: plain with seed 2." in text
    assert "1 of 9 trials have not been run." in text


def test_nothing_finished():
    results = judged([92.0, 93.1, 93.9])
    for name in PAIR:
        for seed in range(3):
            fail(results, name, seed)
    found = verdict(results)
    assert found.headline == "No finished comparison for cbam."
    assert found.sentences[0] == "cbam: no seed finished with it and with the plain network."


def test_no_attention_variant():
    found = verdict(build_results(variants=("plain",)))
    assert (found.headline, found.sentences) == ("No attention variant was studied.", [])


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        ({"median": 1.07, "low": 1.05, "high": 1.09}, ", 7% slower,"),
        ({"median": 0.93, "low": 0.91, "high": 0.95}, ", 7% faster,"),
        ({"median": 1.02, "low": 0.99, "high": 1.05}, ", no change of speed beyond the noise,"),
        ({"median": 1.1, "low": 1.0, "high": 1.2}, ", speed measured too noisily to say"),
        (None, "against the plain network, +1.2% parameters"),
    ],
)
def test_speed_in_words(ratio, words):
    results = judged([92.0, 93.1, 93.9])
    results["variants"][1]["latency_ratio"] = ratio
    assert words in verdict(results).sentences[0]


def test_small_differences_are_not_shown_as_nothing():
    found = verdict(judged([90.02, 91.03, 92.025]))
    assert "+0.03 points (95% CI +0.01 to +0.04, 3 seeds)" in found.sentences[0]


def test_a_network_at_chance_is_said():
    found = verdict(judged([9.0, 12.0, 10.0], plain=[9.0, 10.0, 9.5]))
    assert "always naming the largest class (10.4%)" in str(found)


def test_several_variants_share_a_headline():
    results = build_results(variants=("plain", "cbam", "se", "wider"))
    for name, values in {"plain": PLAIN, "cbam": [92.0, 93.1, 93.9], "wider": PLAIN}.items():
        set_accuracies(results, name, values)
    set_accuracies(results, "se", [92.1, 93.1, 93.9])
    assert verdict(results).headline == "cbam and se are worth it on this data."
