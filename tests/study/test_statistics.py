"""Paired statistics: by hand, against SciPy and statsmodels, and by simulated studies."""

import json
import warnings

import numpy as np
import pytest
from results_fixture import build_results, fail, set_accuracies
from scipy import stats
from statsmodels.stats.power import TTestPower

from whatwhere.study.statistics import compare_variants, paired


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


@pytest.mark.parametrize("differences", [[1.0, 2.0, 3.0], [0.3, -0.2, 0.9, 0.4, 0.1], [1.0, 4.0]])
def test_power_and_pairs_needed_against_statsmodels(differences):
    found = paired(differences)
    effect = np.mean(differences) / np.std(differences, ddof=1)
    power = TTestPower()
    assert found.power == pytest.approx(power.power(effect, len(differences), 0.05), rel=1e-6)
    assert power.power(effect, found.pairs_needed, 0.05) >= 0.8
    assert power.power(effect, found.pairs_needed - 1, 0.05) < 0.8


def test_power_where_the_noncentral_t_fails():
    draws = np.random.default_rng(0).normal(5.57, 1.0, (20_000, 2))
    shown = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    a, b = 5.57 + 0.5**0.5, 5.57 - 0.5**0.5  # mean 5.57 and standard deviation 1
    assert paired([a, b]).power == pytest.approx(shown, abs=0.01)


def test_one_pair_has_a_mean_and_no_more():
    found = paired([1.5])
    assert (found.mean, found.pairs) == (1.5, 1)
    assert found.low is found.high is found.p_value is found.power is found.pairs_needed is None


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_equal_differences_have_no_interval(value):
    # 0.1 + 0.2 and 0.3 differ in the last bit only.
    found = paired([value, value, (0.1 + 0.2) * value / 0.3])
    assert found.mean == pytest.approx(value)
    assert found.low is found.high is found.p_value is found.pairs_needed is None


def test_no_effect_asks_for_no_number_of_pairs():
    for differences in ([1.0, -1.0], [1.0, -1.0, 0.001]):
        found = paired(differences)
        assert found.pairs_needed is None
        assert found.power == pytest.approx(0.05, abs=1e-3)
        assert found.low < 0 < found.high


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
