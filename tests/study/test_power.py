"""Power: against statsmodels where that is a number, and against simulation where it is not."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from whatwhere.study.power import detectable, power, power_of


@pytest.mark.parametrize(("mean", "pairs"), [(2.0, 3), (0.3, 5), (2.5, 2)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_against_statsmodels(mean, pairs, level):
    theirs = TTestPower()
    assert power(mean, pairs, level) == pytest.approx(theirs.power(mean, pairs, level), rel=1e-6)
    needed = power_of(mean, 1.0, pairs, level=level).pairs_needed
    assert theirs.power(mean, needed, level) >= 0.8
    assert theirs.power(mean, needed - 1, level) < 0.8


@pytest.mark.parametrize("pairs", [3, 5, 10, 40])
def test_the_detectable_difference_against_statsmodels(pairs):
    expected = TTestPower().solve_power(nobs=pairs, alpha=0.05, power=0.8)
    assert detectable(pairs, 0.05) == pytest.approx(expected, rel=1e-4)
    assert power_of(0.1, 2.5, pairs).detectable == pytest.approx(2.5 * expected, rel=1e-4)


@pytest.mark.parametrize(("pairs", "level"), [(2, 0.05), (2, 0.05 / 6), (3, 0.05 / 6)])
def test_the_detectable_difference_is_shown_in_four_studies_of_five(pairs, level):
    # There the noncentral t, and with it statsmodels, is NaN.
    draws = np.random.default_rng(0).normal(detectable(pairs, level), 1.0, (20_000, pairs))
    shown = (stats.ttest_1samp(draws, 0, axis=1).pvalue < level).mean()
    assert shown == pytest.approx(0.8, abs=0.01)


def test_no_effect_asks_for_no_number_of_pairs():
    assert power_of(0.0, 1.0, 3).pairs_needed is None
    assert power_of(0.001, 1.0, 3).pairs_needed is None
    assert power(0.0, 3, 0.05) == 0.05
