"""First exit of a scalar function: closed forms, a fine walk as reference, properties."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatprobe.utils.first_exit import Exit, first_exit
from tests.helpers.references import walked_exit

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
    inside = sorted({exit_.lower / 100, *(r for r in seen if exit_.lower / 100 < r <= exit_.lower)})
    assert exit_.probing_ratio == pytest.approx(max(b / a for a, b in pairwise(inside)), rel=1e-12)
    assert exit_.probed_from == min(seen)


@given(place=st.floats(0.012, 0.9), width=st.floats(1.001, 60), start=st.floats(0.02, 2), verify=st.integers(0, 30))
def test_property_no_earlier_exit_wider_than_the_probing_ratio_is_missed(
    place: float, width: float, start: float, verify: int
) -> None:
    first, last = place, min(place * width, 0.99)

    def increase(r: float) -> float:
        return 1.0 if first < r < last else LEVEL * r**2

    exit_ = first_exit(increase, LEVEL, start=start, max_radius=100, verify=verify)
    if exit_.lower > last:  # stepped over
        assert last / first <= exit_.probing_ratio * (1 + 1e-9)


def test_the_probing_ratio_covers_what_lies_below_the_first_radius_evaluated() -> None:
    near = first_exit(lambda r: LEVEL * r**2, LEVEL, start=1.004, max_radius=100)  # three radii, all near 1
    assert near.probing_ratio > 90
    verified = first_exit(lambda r: LEVEL * r**2, LEVEL, start=1.004, max_radius=100, verify=10)
    assert verified.probing_ratio == pytest.approx(100 / 11, rel=1e-9)  # from a hundredth to the first of them
    assert first_exit(lambda _: math.nan, LEVEL, start=1.0, max_radius=10).probing_ratio == math.inf


def test_verify_spaces_its_radii_evenly_and_keeps_the_outermost_inside_one() -> None:
    radii: list[float] = []

    def increase(r: float) -> float:
        radii.append(r)
        return 1.0 if 0.72 < r < 0.78 else LEVEL * r**2

    exit_ = first_exit(increase, LEVEL, start=1.004, max_radius=100, verify=3)
    after = next(place for place, r in enumerate(radii) if r < 0.5)
    lower = 4 * radii[after]
    assert radii[after : after + 3] == pytest.approx([lower / 4, lower / 2, 3 * lower / 4], rel=1e-12)
    # What the second of them holds inside is not searched again.
    assert radii[after + 3] > lower / 2
    assert_certified(exit_, 0.72, 1e-2)


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
