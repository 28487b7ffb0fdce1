"""First exit of a scalar function: closed forms, a fine walk as reference, properties."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatprobe.search import Exit, first_exit
from tests.references import walked_exit

LEVEL = 0.05


def assert_certified(exit_: Exit, radius: float, rtol: float) -> None:
    assert exit_.lower <= radius <= exit_.upper
    assert exit_.upper <= exit_.lower * (1 + rtol) * (1 + 1e-12)
    assert exit_.lower <= exit_.radius <= exit_.upper


@given(
    power=st.floats(0.7, 6),
    radius=st.floats(1e-3, 1e3),
    start=st.floats(1e-2, 1e2),
    rtol=st.sampled_from([1e-1, 1e-2, 1e-4]),
)
def test_closed_form_a_power_leaves_at_its_radius(power: float, radius: float, start: float, rtol: float) -> None:
    exit_ = first_exit(lambda r: LEVEL * (r / radius) ** power, LEVEL, start=start, max_radius=1e6, rtol=rtol)
    assert_certified(exit_, radius, rtol)
    assert exit_.radius == pytest.approx(radius, rel=1e-6)  # interpolation in log-log is exact for a power
    assert exit_.evaluations <= 16


@pytest.mark.parametrize(
    "increase",
    [
        lambda r: -0.02 * r + 0.01 * r**2,  # falls first
        lambda r: math.expm1(r) * 0.01,
        lambda r: -0.01 * r**2,  # leaves the band below
        lambda r: 0.2 * math.tanh(r / 4) ** 3,
        lambda r: math.nan if r > 2.5 else 0.001 * r,
        lambda r: math.inf if r > 2.5 else 0.0,
        lambda r: 1.0 if r > 2.5 else 0.0,
    ],
)
def test_slow_reference_a_fine_walk_finds_the_same_exit(increase) -> None:
    step = 1e-4
    walked = walked_exit(increase, LEVEL, step, 50)
    for smooth in (True, False):
        exit_ = first_exit(increase, LEVEL, start=0.3, max_radius=50, rtol=1e-2, smooth=smooth)
        assert exit_.lower <= walked <= exit_.upper + step
        assert_certified(exit_, exit_.radius, 1e-2)


def test_property_only_evaluated_radii_certify() -> None:
    seen = {}

    def increase(r: float) -> float:
        seen[r] = 0.01 * r**2
        return seen[r]

    exit_ = first_exit(increase, LEVEL, start=1.0, max_radius=100)
    assert seen[exit_.lower] <= LEVEL < seen[exit_.upper]
    assert exit_.evaluations == len(seen)
    inside = sorted(r for r in seen if r <= exit_.lower)
    assert exit_.probing_ratio == max((b / a for a, b in pairwise(inside)), default=math.inf)
    assert exit_.probed_from == min(seen)


def test_property_never_leaving_is_censored_at_max_radius() -> None:
    radii = []
    exit_ = first_exit(lambda r: radii.append(r) or 0.01, LEVEL, start=0.1, max_radius=7.0)
    assert not exit_.reached
    assert exit_.radius == math.inf
    assert exit_.lower == 7.0 == max(radii)


def test_property_an_exit_at_once_is_near_zero() -> None:
    exit_ = first_exit(lambda _: math.nan, LEVEL, start=1.0, max_radius=10)
    assert exit_.reached
    assert exit_.upper <= 1e-11


def bump(r: float) -> float:
    return 1.0 if 0.6 < r < 0.7 else 0.01 * r**2


def test_closed_form_verify_finds_the_bump_that_the_bracket_steps_over() -> None:
    blind = first_exit(bump, LEVEL, start=1.0, max_radius=100)
    assert blind.radius == pytest.approx(5**0.5, rel=1e-2)
    assert blind.excursions == 0
    verified = first_exit(bump, LEVEL, start=1.0, max_radius=100, verify=40)
    assert_certified(verified, 0.6, 1e-2)
    assert verified.excursions == 1


def test_closed_form_verify_finds_a_bump_inside_a_censored_direction() -> None:
    exit_ = first_exit(lambda r: 1.0 if 0.6 < r < 0.7 else 0.0, LEVEL, start=1.0, max_radius=2.0, verify=40)
    assert_certified(exit_, 0.6, 1e-2)


def test_property_a_tolerance_finer_than_numbers_ends() -> None:
    exit_ = first_exit(lambda r: 0.01 * r**2, LEVEL, start=1.0, max_radius=100, rtol=1e-17)
    assert exit_.radius == pytest.approx(5**0.5, rel=1e-12)


def test_closed_form_verify_counts_each_earlier_exit() -> None:
    def two_bumps(r: float) -> float:
        return 1.0 if 0.2 < r < 0.25 or 1.5 < r < 1.6 else 0.01 * r**2

    exit_ = first_exit(two_bumps, LEVEL, start=2.0, max_radius=100, verify=25)
    assert_certified(exit_, 0.2, 1e-2)
    assert exit_.excursions >= 1


def test_verify_evaluates_that_many_interior_radii() -> None:
    plain = first_exit(lambda r: r**2, LEVEL, start=0.1, max_radius=100)
    verified = first_exit(lambda r: r**2, LEVEL, start=0.1, max_radius=100, verify=5)
    assert verified.evaluations == plain.evaluations + 5
    assert verified.radius == plain.radius


def test_pinned_a_warm_start_needs_three_evaluations() -> None:
    exit_ = first_exit(lambda r: LEVEL * r**2, LEVEL, start=1.04, max_radius=100, slope=2.0)
    assert exit_.evaluations == 3
