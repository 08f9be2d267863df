import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from incremental.report.statistics import Estimate, estimate, holm, paired_p, same_difference


def test_interval_of_two_seeds_by_closed_form() -> None:
    # With one degree of freedom t is Cauchy: its 97.5 % quantile is tan(0.475 π); s / √2 is half of 3 - 1.
    found = estimate([1.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(math.tan(0.475 * math.pi) * 1.0)
    assert found.n == 2


def test_interval_agrees_with_scipy() -> None:
    values = [0.11, 0.14, 0.12, 0.19, 0.1]
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(values), scipy.stats.sem(values))
    found = estimate(values)
    assert found.mean is not None
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


def test_one_seed_has_no_interval_and_none_has_nothing() -> None:
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    assert estimate([]) == Estimate(None, None, 0)
    assert estimate([0.5, 0.5]) == Estimate(0.5, 0.0, 2)


def test_paired_p_agrees_with_scipy() -> None:
    one, other = np.array([0.3, 0.35, 0.31, 0.4]), np.array([0.28, 0.36, 0.25, 0.33])
    expected = scipy.stats.ttest_rel(one, other).pvalue
    assert paired_p((one - other).tolist()) == pytest.approx(expected)
    assert paired_p((other - one).tolist()) == pytest.approx(expected)


def test_equal_differences_have_no_test() -> None:
    assert paired_p([0.0, 0.0, 0.0]) is None
    assert paired_p([0.1, 0.1, 0.1]) is None
    # Rounding: 0.3 - 0.2 and 0.4 - 0.3 are not the same float.
    rounded = [0.3 - 0.2, 0.4 - 0.3]
    assert rounded[0] != rounded[1]
    assert paired_p(rounded) is None
    assert same_difference(rounded)
    assert not same_difference([0.1, 0.1001])
    assert not same_difference([0.1])
    assert paired_p([0.1]) is None
    assert paired_p([]) is None


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04; the last is raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, p_holm in zip(p_values, corrected, strict=True):
        assert p_holm is not None
        assert p <= p_holm <= min(1.0, len(p_values) * p) or p_holm == max(p, p_holm)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected, dtype=float)[order]) >= 0)
