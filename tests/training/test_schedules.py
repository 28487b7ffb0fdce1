"""Schedules: closed forms, the 1/k rate against a naive loop (slow reference) and its theorem, refusals."""

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from flatprobe.models import mlp
from flatprobe.training import inverse_rate, train
from flatprobe.training.schedules import check_schedule, factor
from flatprobe.utils.rng import permutation
from tests.helpers.small_data import clusters


def factors(schedule, epochs):
    return [factor(schedule, epoch, epochs, step=0) for epoch in range(epochs)]


def test_closed_forms() -> None:
    assert factors(None, 3) == [1.0, 1.0, 1.0]
    assert factors("constant", 2) == [1.0, 1.0]
    assert factors("cosine", 3) == pytest.approx([1.0, 0.75, 0.25], abs=1e-12)
    assert factors({"name": "step", "stages": [[1, 2], [0.5, 1], [0.1, 1]]}, 6) == [1, 1, 0.5, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("linear", "the schedule 'linear' is unknown; expected one of constant, step, cosine, inverse, or a dict"),
        ({"stages": [[1, 2]]}, "is unknown"),
        ("step", "does not fit step"),
        ({"name": "step", "stages": []}, "does not fit step"),
        ({"name": "step", "stages": [0.1]}, "does not fit step"),
        ({"name": "cosine", "period": 3}, "does not fit cosine"),
        ({"name": "step", "stages": [[-1.0, 2]]}, "expected finite ones, at least 0"),
        ({"name": "step", "stages": [[float("nan"), 2]]}, "expected finite ones, at least 0"),
        ({"name": "step", "stages": [[1.0, 0]]}, "a stage of 0 epochs; expected a whole number, at least 1"),
        ({"name": "step", "stages": [[1.0, 5], [0.5, -2]]}, "a stage of -2 epochs"),
        ({"name": "step", "stages": [[1.0, 1.5]]}, r"a stage of 1\.5 epochs"),
        ({"name": "step", "stages": [[1.0, float("nan")]]}, "a stage of nan epochs"),
        ({"name": "step", "stages": [[1.0, "2"]]}, "does not fit step"),
        ("inverse", r"does not fit inverse .*'decay'"),
        ({"name": "inverse", "decay": -0.5}, r"a decay of -0\.5; expected a finite number, at least 0"),
        ({"name": "inverse", "decay": float("inf")}, "a decay of inf"),
    ],
)
def test_refusals(schedule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(schedule, 3)


def test_inverse_rate_closed_form() -> None:
    """O20 eq. SLR as printed, h_k = 1 / (mu (k + 1 / (q_0 alpha))), against first rate and factor."""
    mu, L, variance, q = 0.5, 2.0, 3.0, 1.5
    alpha = mu**2 / (variance + mu * L * q)
    chosen = inverse_rate(convexity=mu, smoothness=L, variance=variance, distance=q)
    assert chosen["momentum"] == 0.0
    for k in (0, 1, 7, 1000):
        rate = chosen["learning_rate"] * factor(chosen["schedule"], 0, 1, k)
        assert rate == pytest.approx(1 / (mu * (k + 1 / (q * alpha))), rel=1e-12)


@pytest.mark.parametrize("variance", [0.0, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("distance", [0.01, 1.0, 50.0])
def test_closed_form_inverse_rate_keeps_its_theorem(variance: Any, distance: Any) -> None:
    """On a quadratic E q_k is known exactly, and O20 Theorem 5.2 bounds it."""
    eigenvalues = torch.tensor([0.5, 2.0], dtype=torch.float64)
    chosen = inverse_rate(convexity=0.5, smoothness=2.0, variance=variance, distance=distance)
    alpha = 0.25 / (variance + distance)
    for start in torch.eye(2, dtype=torch.float64):
        q = distance * start
        for k in range(500):
            rate = chosen["learning_rate"] * factor(chosen["schedule"], 0, 1, k)
            q = (1 - rate * eigenvalues) ** 2 * q + rate**2 * variance / 2
            assert q.sum() <= (1 + 1e-9) / (alpha * (k + 1) + 1 / distance)  # equal where mu = L and k is small


def test_closed_form_inverse_follows_the_steps_of_the_whole_training() -> None:
    data, network = clusters(), mlp((4,), widths=(8,), classes=3)
    schedule = {"name": "inverse", "decay": 0.3}
    run = train(network, data, epochs=3, learning_rate=0.2, momentum=0.5, batch_size=8, seed=5, schedule=schedule)
    naive, step = copy.deepcopy(network), 0
    optimizer = torch.optim.SGD(naive.parameters(), lr=0.2, momentum=0.5)
    for epoch in range(3):
        order = permutation(37, 5, "shuffle", epoch)
        for positions in (*order[:32].split(8), order[32:]):
            optimizer.param_groups[0]["lr"] = 0.2 / (1 + 0.3 * step)
            optimizer.zero_grad()
            F.cross_entropy(naive(data.inputs[positions]), data.labels[positions]).backward()
            optimizer.step()
            step += 1
        assert run.history[epoch]["learning_rate"] == pytest.approx(0.2 / (1 + 0.3 * (step - 1)), rel=1e-12)
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, naive.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_the_constants_are_checked() -> None:
    fit = {"convexity": 1.0, "smoothness": 2.0, "variance": 1.0, "distance": 1.0}
    for name in ("convexity", "smoothness", "distance"):
        with pytest.raises(ValueError, match=rf"{name} must be a positive finite number, got 0\.0"):
            inverse_rate(**fit | {name: 0.0})
    for wrong in ({"smoothness": 0.5}, {"variance": -1.0}, {"variance": float("nan")}):
        with pytest.raises(ValueError, match="expected a smoothness of at least the convexity, and a finite variance"):
            inverse_rate(**fit | wrong)
