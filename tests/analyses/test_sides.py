"""Statements with two sides."""

import pandas as pd
import pytest

from analyses.sides import below, equal, side


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [side("same", 1.0, 1.0, m=1), side("same", 2.2, 2.0, m=2), side("small", 0.5, 2.0), side("small", 1.0, 1.25)]
    return pd.DataFrame([*rows, side("zero", 1e-9, 0.0), side("zero", 1.0, 1.0)])


def test_the_effect_is_the_largest_relative_difference_closed_form(frame: pd.DataFrame) -> None:
    found = equal(frame, "same", "rule", tolerance=0.09)
    assert (found.holds, found.seeds, found.exact) == (False, 2, True)
    assert found.effect == pytest.approx(0.1)
    assert equal(frame, "same", "rule", tolerance=0.11).holds


def test_a_side_of_zero_is_compared_with_the_largest_closed_form(frame: pd.DataFrame) -> None:
    assert equal(frame, "zero", "rule", tolerance=1).effect == pytest.approx(1e-9 / 1e-6)


def test_the_effect_is_the_largest_ratio_closed_form(frame: pd.DataFrame) -> None:
    found = below(frame, "small", "rule", beside=True)
    assert (found.holds, found.beside, found.effect) == (True, True, 0.8)
    assert not below(frame, "same", "rule").holds


def test_an_unknown_statement_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="statement must be one of same, small, zero, got 'other'"):
        equal(frame, "other", "rule", tolerance=1)


def test_nan_on_one_problem_refutes_closed_form() -> None:
    frame = pd.DataFrame([side("one", 1.0, 1.0), side("one", float("nan"), 1.0)])
    assert equal(frame, "one", "rule", tolerance=1).holds is False
    assert below(frame, "one", "rule").holds is False
