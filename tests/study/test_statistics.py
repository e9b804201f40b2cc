"""Paired statistics: by hand, against SciPy and statsmodels, and by simulated studies."""

import gc
import json
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from results_fixture import build_results, fail, set_accuracies
from scipy import stats

from whatwhere.study.statistics import compare_variants, paired, paired_rows


def test_by_hand():
    # 1, 2, 3: mean 2, sd 1, standard error 1/sqrt(3); t(0.975, 2) = 4.302653.
    found = paired([1.0, 2.0, 3.0])
    half = 4.302652729911275 / 3**0.5
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.low == pytest.approx(2 - half, rel=1e-9)
    assert found.high == pytest.approx(2 + half, rel=1e-9)
    # t = 2 sqrt(3); for 2 degrees of freedom p = 1 - t / sqrt(2 + t²).
    t = 2 * 3**0.5
    assert found.p_value == pytest.approx(1 - t / (2 + t**2) ** 0.5, rel=1e-9)


def test_against_scipy_on_pairs():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 2, 7), rng.normal(0, 2, 7)
    test = stats.ttest_rel(ours, theirs)
    found = paired(list(ours - theirs), confidence=0.9)
    interval = test.confidence_interval(0.9)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_one_pair_has_a_mean_and_no_more():
    found = paired([1.5])
    assert (found.mean, found.pairs) == (1.5, 1)
    assert found.deviation is found.low is found.high is found.p_value is None


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_equal_differences_have_no_interval(value):
    # 0.1 + 0.2 and 0.3 differ in the last bit only.
    found = paired([value, value, (0.1 + 0.2) * value / 0.3])
    assert found.mean == pytest.approx(value)
    assert found.low is found.high is found.p_value is None
    assert found.deviation == 0


def test_rows_are_judged_as_each_alone():
    rows = [[1.0, 2.0, 3.0], [0.5], [2.0, 2.0], [0.3, -0.2, 0.9, 0.4], [3.0, 1.0, 2.5]]
    numbers = [[v for v in asdict(each).values() if v is not None] for each in paired_rows(rows)]
    for row, found in zip(rows, numbers, strict=True):
        alone = [value for value in asdict(paired(row)).values() if value is not None]
        assert found == pytest.approx(alone, rel=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"finite differences, got \[\]"):
        paired([])
    with pytest.raises(ValueError, match=r"finite differences, got \[1.0, nan\]"):
        paired([1.0, float("nan")])
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        paired([1.0, 2.0], confidence=95)


def test_intervals_cover_the_truth_as_often_as_they_say():
    # 2000 simulated studies of 3 seeds with a true difference of 0.7 points.
    draws = np.random.default_rng(20260301).normal(0.7, 1.3, (2000, 3))
    covered = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for study in draws:
            found = paired(study.tolist())
            covered += found.low <= 0.7 <= found.high
    assert abs(covered / 2000 - 0.95) < 0.02


def test_variants_are_compared_with_the_baseline_and_the_control():
    results = build_results()
    set_accuracies(results, "plain", [90.0, 91.0, 92.0])
    set_accuracies(results, "cbam", [91.0, 93.0, 95.0])
    set_accuracies(results, "wider", [90.5, 91.5, 92.0])
    found = {(each.variant, each.against): each for each in compare_variants(results)}
    assert list(found) == [
        ("cbam", "plain"),
        ("se", "plain"),
        ("wider", "plain"),
        ("cbam", "wider"),
        ("se", "wider"),
    ]
    assert found["cbam", "plain"].differences == pytest.approx((1.0, 2.0, 3.0))
    assert found["cbam", "wider"].differences == pytest.approx((0.5, 1.5, 3.0))
    assert found["cbam", "plain"].paired.low == pytest.approx(-0.4841377, abs=1e-6)
    json.dumps([each.as_dict() for each in found.values()], allow_nan=False)


def test_pairs_are_matched_by_seed_among_finished_trials():
    results = fail(fail(build_results(), "cbam", 0), "plain", 2, status="failed")
    results["trials"].reverse()
    first = compare_variants(results)[0]
    assert (first.variant, first.against, first.seeds) == ("cbam", "plain", (1,))
    for seed in (0, 1, 2):
        fail(results, "cbam", seed)
    assert "cbam" not in {each.variant for each in compare_variants(results)}


PLAIN = [90.0, 91.0, 92.0, 91.0]
SEEDS = (0, 1, 2, 3)


def study_of(differences, *, control=None, until_sure=None):
    """A study in which these attention variants differ from the plain network by so much."""
    results = build_results(seeds=SEEDS, variants=("plain", "cbam", "se", "wider"))
    results["settings"]["until_sure"] = until_sure
    by_name = dict(zip(("cbam", "se"), differences, strict=True))
    by_name["wider"] = [0.1, -0.1, 0.1, 0.2] if control is None else control
    set_accuracies(results, "plain", PLAIN)
    for name, each in by_name.items():
        set_accuracies(results, name, [p + d for p, d in zip(PLAIN, each, strict=True)])
    return results


def by_pair(results):
    return {(each.variant, each.against): each for each in compare_variants(results)}


def test_the_family_is_all_attention_variants_against_the_plain_network():
    found = by_pair(study_of([[1.0, 1.5, 2.0, 1.2], [0.3, 0.6, 0.1, 0.4]]))
    p = {name: found[name, "plain"].paired.p_value for name in ("cbam", "se")}
    low, high = sorted(p, key=p.get)
    assert found[low, "plain"].p_adjusted == pytest.approx(2 * p[low])
    assert found[high, "plain"].p_adjusted == pytest.approx(max(2 * p[low], p[high]))
    assert {each.family_size for each in found.values() if each.family} == {2}
    own = found["wider", "plain"]  # a control against the plain network is no claim on attention
    assert (own.family, own.p_adjusted, own.shown) == (None, None, False)


def test_a_difference_that_one_of_two_variants_shows_by_chance_is_not_shown():
    found = by_pair(study_of([[0.4, 0.9, 0.5, 1.3], [0.3, -0.6, 0.1, -0.4]]))["cbam", "plain"]
    assert found.paired.low > 0
    assert 0.025 < found.paired.p_value < 0.05 < found.p_adjusted
    assert not found.shown


def test_the_claim_over_the_control_is_that_over_both():
    # Far above the control, which is far below the plain network, and hardly above that.
    found = by_pair(
        study_of([[0.3, 0.9, 0.4, 1.4], [3.0, 3.1, 3.3, 3.2]], control=[-9.0, -8.9, -9.1, -9.0])
    )
    over_control = found["cbam", "wider"]
    assert over_control.paired.p_value < 1e-4
    assert over_control.p_adjusted == pytest.approx(found["cbam", "plain"].paired.p_value)
    assert found["se", "wider"].p_adjusted < 1e-3


def test_a_variant_without_an_interval_counts_as_tried():
    results = study_of([[1.0, 1.5, 2.0, 1.2], [0.5, 0.5, 0.5, 0.5]])
    found = by_pair(results)
    assert found["se", "plain"].p_adjusted is None
    assert not found["se", "plain"].shown
    assert found["cbam", "plain"].p_adjusted == pytest.approx(
        2 * found["cbam", "plain"].paired.p_value
    )


def test_until_sure_widens_the_intervals_and_lowers_the_level():
    differences = [[1.0, 1.5, 2.0, 1.2], [0.3, 0.6, 0.1, 0.4]]
    plain, sure = by_pair(study_of(differences)), by_pair(study_of(differences, until_sure=1.0))
    for pair in plain:
        expected = paired(plain[pair].differences, confidence=0.97)
        assert (sure[pair].paired.low, sure[pair].paired.high) == (expected.low, expected.high)
        assert sure[pair].p_adjusted == plain[pair].p_adjusted
        assert (plain[pair].level, sure[pair].level) == (0.05, 0.03)


@pytest.fixture
def quick_collection():
    # statsmodels' Holm procedure collects garbage, which takes long with torch in memory.
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("until_sure", [None, 1.0])
def test_what_is_shown_has_an_interval_without_0(until_sure, quick_collection):
    random, shown = np.random.default_rng(5), 0
    for _ in range(100):
        results = study_of(random.normal(0.6, 0.8, (2, 4)).tolist(), until_sure=until_sure)
        for each in compare_variants(results):
            if each.shown:
                shown += 1
                assert each.paired.low > 0 or each.paired.high < 0
    assert shown > 5
