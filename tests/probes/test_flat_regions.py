"""Flat regions of a landscape: the share at a level, and the profile by distance from the nearest corner."""

import math

import pytest
import torch

import flatprobe as fp
from flatprobe.probes.interpolation import Interpolation
from tests.helpers import cases

DATA = cases.data_for((1, 8, 8))


def _landscape(coefficients: torch.Tensor, loss: torch.Tensor, error: torch.Tensor) -> Interpolation:
    return Interpolation(coefficients=coefficients, loss=loss, error=error, settings={})


@pytest.mark.parametrize("endpoints", [2, 3, 4])
def test_closed_form_a_surface_that_depends_on_the_distance_alone(endpoints: int) -> None:
    points = fp.simplex(endpoints, steps=20)
    d = 1 - points.amax(1)
    landscape = _landscape(points, 2 * d, d)
    profile = landscape.profile()
    assert list(profile) == ["distance", "points", "loss", "accuracy", "not_finite"]
    largest = 20 - -(-20 // endpoints)  # of the steps: max lambda is at least 1/endpoints
    assert profile["distance"].tolist() == [round(k / 20, 9) for k in range(largest + 1)]
    assert profile["points"].sum() == len(points)
    assert profile["points"][0] == endpoints  # the corners
    assert profile["loss"].to_numpy() == pytest.approx(2 * profile["distance"].to_numpy(), abs=1e-9)
    assert profile["accuracy"].to_numpy() == pytest.approx(1 - profile["distance"].to_numpy(), abs=1e-9)
    for step in range(21):  # the levels of the steps themselves: a point at its own level counts
        near = int((d <= step / 20 + 1e-9).sum()) / len(points)
        assert landscape.flat_share(1 - step / 20) == near
        assert landscape.flat_share(step / 10 + 1e-9, quantity="loss") == near
    assert (landscape.flat_share(-1), landscape.flat_share(1.01)) == (1.0, 0.0)
    assert landscape.flat_share(-1, quantity="loss") == 0.0


def test_slow_reference_share_and_profile_of_three_networks() -> None:
    models = [cases.mlp(seed=seed) for seed in range(3)]
    landscape = fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, fp.simplex(3, steps=6))
    level, rows = float(landscape.accuracy.median()), landscape.coefficients.tolist()
    assert landscape.flat_share(level) == sum(a >= level for a in landscape.accuracy.tolist()) / len(rows)
    for _, row in landscape.profile().iterrows():
        own = [k for k, lambdas in enumerate(rows) if abs(1 - max(lambdas) - row["distance"]) < 1e-6]
        assert row["points"] == len(own)
        assert row["loss"] == pytest.approx(sum(float(landscape.loss[k]) for k in own) / len(own), rel=1e-12)
        assert row["accuracy"] == pytest.approx(sum(float(landscape.accuracy[k]) for k in own) / len(own), rel=1e-12)


def test_property_share_and_profile_ignore_points_beyond_the_simplex() -> None:
    t = torch.tensor([-1.0, 0.0, 0.25, 1.0, 2.0], dtype=torch.float64)
    line = _landscape(torch.stack([1 - t, t], 1), t.square(), torch.tensor([0, 2, 1, 2, 0]).double() / 10)
    assert line.flat_share(0.9) == pytest.approx(1 / 3)
    assert line.profile()["points"].tolist() == [2, 1]
    assert line.profile()["accuracy"].tolist() == pytest.approx([0.8, 0.9])
    outside = _landscape(line.coefficients[:1], line.loss[:1], line.error[:1])
    for figure in (outside.flat_share, outside.profile):
        with pytest.raises(ValueError, match="must include points with all lambda >= 0, got none"):
            figure()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_property_a_point_without_a_finite_loss_is_counted_and_never_dropped(value: float) -> None:
    points = fp.segment(steps=5)
    loss = torch.tensor([0.0, 1.0, value, 3.0, 0.0], dtype=torch.float64)
    line = _landscape(points, loss, torch.zeros(5, dtype=torch.float64))  # an argmax over NaN may look right
    assert line.not_finite == line.summary()["not_finite"] == 1
    assert line.flat_share(0.5) == line.flat_share(10, quantity="loss") == 4 / 5
    profile = line.profile()
    assert profile["not_finite"].tolist() == [0, 0, 1]
    assert profile["accuracy"].tolist()[:2] == [1, 1]
    assert math.isnan(profile["accuracy"][2])
    assert profile["loss"].tolist()[:2] == [0, 2]
    assert not math.isfinite(profile["loss"][2])


def test_share_refuses_a_level_or_quantity_without_meaning() -> None:
    line = _landscape(fp.segment(steps=3), torch.zeros(3).double(), torch.zeros(3).double())
    assert "not_finite" not in line.summary()
    with pytest.raises(ValueError, match=r"quantity must be one of.*, got 'error'"):
        line.flat_share(0.9, quantity="error")
    for level in (math.nan, None, "high"):
        with pytest.raises(ValueError, match="level must be a finite number, got"):
            line.flat_share(level)
