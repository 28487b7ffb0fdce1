"""The verdict table: every combination of holding, size, scale and exactness."""

import pytest

from analyses.reproduction import DIRECTION, REFUTED, REPRODUCED, UNTESTED, Outcome, overall

INSIDE, OUTSIDE = (1.0, 3.0), (5.0, 9.0)  # bands about an effect of 2


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("band", [None, INSIDE, OUTSIDE])
@pytest.mark.parametrize("holds", [None, False, True])
def test_verdict_closed_form(holds: bool | None, band: tuple[float, float] | None, scale: bool, exact: bool) -> None:
    outcome = Outcome(rule="r", holds=holds, effect=2.0, band=band, exact=exact)
    expected = {None: UNTESTED, False: REFUTED, True: DIRECTION}[holds]
    if holds and (exact or (scale and band != OUTSIDE)):
        expected = REPRODUCED
    assert outcome.verdict(published_scale=scale) == expected


def test_the_ends_of_a_band_count_as_the_published_size_closed_form() -> None:
    for effect, expected in ((1.0, REPRODUCED), (3.0, REPRODUCED), (3.0001, DIRECTION), (0.9999, DIRECTION)):
        assert Outcome(rule="r", holds=True, effect=effect, band=INSIDE).verdict(published_scale=True) == expected


def test_an_item_has_the_weakest_verdict_of_its_rules_closed_form() -> None:
    holds = Outcome(rule="a", holds=True, effect=1.0)
    exact = Outcome(rule="b", holds=True, effect=0.0, exact=True)
    open_ = Outcome(rule="c", holds=None, effect=0.0)
    fails = Outcome(rule="d", holds=False, effect=-1.0)
    beside = Outcome(rule="e", holds=False, effect=-1.0, beside=True)
    for outcomes, expected in (
        ([exact], REPRODUCED),
        ([exact, holds], DIRECTION),
        ([open_, holds, exact], UNTESTED),
        ([holds, fails, open_], REFUTED),
        ([exact, beside], REPRODUCED),
        ([beside], UNTESTED),
        ([], UNTESTED),
    ):
        assert overall(outcomes, published_scale=False) == expected
