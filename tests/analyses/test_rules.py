"""Rules on known numbers: Student's interval, differences, ratios, trends, exact statements."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses import rules


def test_students_interval_closed_form() -> None:
    mean, lower, upper = rules.student([1.0, 2.0, 3.0])
    half = 4.302652729749464 / 3**0.5  # the 0.975 quantile of Student's t with 2 degrees of freedom
    assert (mean, lower, upper) == (2.0, pytest.approx(2 - half), pytest.approx(2 + half))
    mean, lower, upper = rules.student([5.0])
    assert mean == 5.0
    assert math.isnan(lower)
    assert math.isnan(upper)


def test_students_interval_slow_reference() -> None:
    values = np.random.default_rng(0).normal(size=7)
    test = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert rules.student(values)[1:] == pytest.approx((test.low, test.high))


def test_a_decision_needs_the_whole_interval_on_one_side_closed_form() -> None:
    assert rules.decide(0.1, 0.2) is True
    assert rules.decide(-0.2, -0.1) is False
    assert rules.decide(-0.1, 0.1) is None
    assert rules.decide(0.1, 0.2, 0.15) is None
    assert rules.decide(0.1, 0.2, 0.3) is False
    assert rules.decide(math.nan, math.nan) is None


def test_a_difference_closed_form() -> None:
    found = rules.difference("r", [2.0, 2.1, 2.2], published=2.0, band=(1.0, 3.0), unit="points")
    assert (found.holds, found.effect, found.seeds, found.unit) == (True, pytest.approx(2.1), 3, "points")
    assert found.interval == pytest.approx((2.1 - 0.248414, 2.1 + 0.248414), abs=1e-5)
    assert rules.difference("r", [-2.0, -2.1, -2.2]).holds is False
    assert rules.difference("r", [2.0, 2.1, 2.2], above=2.1).holds is None
    assert rules.difference("r", [2.0]).holds is None
    assert rules.difference("r", pd.Series([1.0, -1.0])).holds is None


def test_a_ratio_is_a_geometric_mean_closed_form() -> None:
    found = rules.ratio("r", [2.0, 8.0], [1.0, 1.0])
    assert found.effect == pytest.approx(4.0)
    assert found.holds is None
    assert math.prod(found.interval) == pytest.approx(16.0)  # symmetric about the mean of the logs
    assert rules.ratio("r", [4.0, 4.1, 3.9], [2.0, 2.0, 2.0]).holds is True
    assert rules.ratio("r", [4.0, 4.1, 3.9], [2.0, 2.0, 2.0], above=3.0).holds is False


def test_a_trend_closed_form() -> None:
    rising = pd.DataFrame({"n": [1, 2, 3] * 2, "y": [1.0, 2.0, 4.0, 0.0, 5.0, 6.0], "seed": [0] * 3 + [1] * 3})
    found = rules.trend("r", rising, "n", "y", seed="seed")
    assert (found.holds, found.effect, found.interval, found.seeds) == (True, 1.0, (1.0, 1.0), 2)
    assert rules.trend("r", rising, "n", "y", seed="seed", rising=False).holds is False
    falling = rising.assign(y=-rising["y"])
    found = rules.trend("r", falling, "n", "y", seed="seed", rising=False)
    assert (found.holds, found.effect, found.interval) == (True, -1.0, (-1.0, -1.0))
    assert rules.trend("r", rising[rising["seed"] == 0], "n", "y", seed="seed").holds is None
    two = rising[rising["n"] < 3]  # chance orders two points of two seeds alike in one of four
    assert rules.trend("r", two, "n", "y", seed="seed").holds is None


def test_an_exact_statement_closed_form() -> None:
    found = rules.exact("r", 1e-12, tolerance=1e-9, problems=100)
    assert (found.holds, found.exact, found.seeds, found.interval) == (True, True, 100, None)
    assert rules.exact("r", 1e-9, tolerance=1e-9).holds is True
    assert rules.exact("r", 1.1e-9, tolerance=1e-9).holds is False
    assert rules.exact("r", math.nan, tolerance=1.0).holds is False


def test_a_mean_within_bounds_closed_form() -> None:
    found = rules.within("r", [9.9, 10.0, 10.1], (5.0, 15.0), published=10.0)
    assert (found.holds, found.effect, found.published, found.seeds) == (True, pytest.approx(10.0), 10.0, 3)
    assert rules.within("r", [9.9, 10.0, 10.1], (10.0, 15.0)).holds is None
    assert rules.within("r", [9.9, 10.0, 10.1], (11.0, 15.0)).holds is False
    assert rules.within("r", [9.9, 10.0, 10.1], (1.0, 9.0)).holds is False
    assert rules.within("r", [10.0], (5.0, 15.0)).holds is None
