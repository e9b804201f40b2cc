"""What docs/statistics.md says of error rates, in a smaller simulation, with planted faults."""

from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from benchmarks.coverage.page import with_tables
from benchmarks.coverage.simulate import fixed, until_sure
from whatwhere.files import read_json
from whatwhere.study import statistics, stopping
from whatwhere.study.statistics import compare_variants

ROOT = Path(__file__).parents[2]
STUDIES = 600
SURE_STUDIES = 1500  # the fault is of some points in a hundred
# What 5 in 100 exceeds once in 10,000 simulations.
LIMIT = stats.binom.isf(1e-4, STUDIES, 0.05)


def uncorrected(results):
    return [
        replace(each, shown=each.paired.p_value <= each.level) for each in compare_variants(results)
    ]


def leads_taken_for_shown(results):
    return [
        replace(each, shown=each.paired.mean > 0) if each.family == "over control" else each
        for each in compare_variants(results)
    ]


def nothing_differs(compare):
    found = fixed("gaussian", "none", seeds=3, variants=6, count=STUDIES, compare=compare)
    return found["helps"] + found["hurts"]


def test_with_no_true_difference_few_studies_claim_one():
    assert 0 < nothing_differs(compare_variants) <= LIMIT


def test_without_the_correction_too_many_would():
    assert nothing_differs(uncorrected) > LIMIT


def size_explains(compare):
    return fixed("gaussian", "size", seeds=10, variants=3, count=STUDIES, compare=compare)["worth"]


def test_what_size_explains_is_seldom_said_to_be_worth_it():
    assert 0 < size_explains(compare_variants) <= LIMIT


def test_a_lead_that_need_not_be_shown_would_be_too_often():
    assert size_explains(leads_taken_for_shown) > LIMIT


@pytest.mark.parametrize("world", ["gaussian", "counted"])
def test_intervals_cover_the_truth_as_often_as_they_say(world):
    found = fixed(world, "half", seeds=4, variants=2, count=STUDIES)
    share = found["covering"] / found["intervals"]
    assert abs(share - 0.95) < 4 * (0.05 * 0.95 / STUDIES) ** 0.5


def covered_until_sure():
    found = until_sure("gaussian", 1.1, seeds=3, max_seeds=25, variants=1, count=SURE_STUDIES)
    return found["covering"] / found["intervals"]


def test_intervals_cover_the_truth_when_seeds_are_added_until_they_are_narrow():
    assert covered_until_sure() > stats.binom.ppf(1e-3, SURE_STUDIES, 0.95) / SURE_STUDIES


def test_intervals_that_allow_nothing_for_stopping_would_not(monkeypatch):
    for module in (statistics, stopping):
        monkeypatch.setattr(module, "SURE_LEVEL", 0.05)
    monkeypatch.setattr(stopping, "LEAST_PAIRS", 2)
    assert covered_until_sure() < stats.binom.ppf(1e-3, SURE_STUDIES, 0.95) / SURE_STUDIES


def test_the_page_has_what_was_simulated():
    page = ROOT / "docs" / "statistics.md"
    text = page.read_text(encoding="utf-8")
    cells = read_json(ROOT / "benchmarks" / "results" / "coverage.json")
    assert with_tables(text, cells) == text, "run python -m benchmarks.coverage --tables-only"
    assert text.count("<!-- table:") == text.count("<!-- end -->") >= 5
