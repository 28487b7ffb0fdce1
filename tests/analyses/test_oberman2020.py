"""Quantities of the analyses of Oberman (2020)."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

import flatprobe as fp
from analyses.oberman2020.hypotheses import trained
from analyses.oberman2020.implicit import expectation, further, regularizer
from analyses.oberman2020.kernels import fourier, series, slope
from analyses.oberman2020.learning_theory import largest, majority_gap, searched
from analyses.oberman2020.sgd import CURVATURES, expectations
from analyses.oberman2020.splines import energy
from analyses.thumwanit2020.noise_injection import measure

EXACT = 1e-9  # algebra in float64


def test_the_largest_rectangle_closed_form() -> None:
    points = np.array([[0.1, 0.1], [0.2, 0.8], [0.5, 0.5], [0.8, 0.2], [0.9, 0.9]])
    assert largest(points, np.array([1, 1, -1, 1, 1])) == 3  # all but the centre need the centre
    assert largest(points, np.array([1, -1, 1, -1, -1])) == 2
    assert largest(points, -np.ones(5)) == 0


def test_the_largest_rectangle_slow_reference() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        points, signs = random.uniform(size=(7, 2)), random.choice([-1, 1], 7)
        assert largest(points, signs) == searched(points, signs)


def test_the_energy_of_a_curve_closed_form() -> None:
    x = np.linspace(0, 1, 5)
    assert energy(CubicSpline(x, 3 * x**2)) == pytest.approx(36, rel=EXACT)  # f'' = 6
    assert energy(CubicSpline(x, x**3)) == pytest.approx(12, rel=EXACT)  # f'' = 6 x


def test_the_recursion_of_sgd_closed_form() -> None:
    rate = {"learning_rate": 0.1, "schedule": {"decay": 1.0}}
    first, second, third = expectations(rate, variance=4.0, start=2.0, steps=2)
    curvatures, steps = np.array(CURVATURES), (0.1, 0.05)
    one = (1 - steps[0] * curvatures) ** 2 * 2 / 4 + steps[0] ** 2 * 4 / 4
    two = (1 - steps[1] * curvatures) ** 2 * one + steps[1] ** 2 * 4 / 4
    assert [first, second, third] == pytest.approx([2.0, one.sum(), two.sum()], rel=EXACT)


def test_moments_of_the_noise_closed_form() -> None:
    for law, fourth in (("Gaussian", 3), ("signs", 1)):
        assert expectation(lambda v: v**2, 0.5, law) == pytest.approx(0.25, rel=EXACT)
        assert expectation(lambda v: v**4, 0.5, law) == pytest.approx(fourth / 16, rel=EXACT)


def test_the_regularizer_of_the_noise_closed_form() -> None:
    derivatives = (2.0, 3.0, 4.0, 5.0, 6.0)
    assert regularizer(derivatives, 1.0, 0.5, 3.0) == pytest.approx(0.25 * (9 + 4 + 3 * 0.25 / 4 * 16), rel=EXACT)
    assert further(derivatives, 1.0, 0.5) == pytest.approx(0.0625 * (15 + 1.5), rel=EXACT)


def test_the_norm_of_one_gaussian_closed_form() -> None:
    centre, weight = np.array([0.3]), np.array([2.0])
    assert series(centre, weight) == pytest.approx(4 * math.sqrt(2 * math.pi), rel=1e-6)
    assert fourier(centre, weight) == pytest.approx(4 * math.sqrt(2 * math.pi), rel=1e-6)


def test_the_gradient_of_the_kernel_regression_slow_reference() -> None:
    random = np.random.default_rng(0)
    root = random.normal(size=(4, 4))
    kernel, y, weights = root @ root.T, random.normal(size=4), random.normal(size=4)

    def objective(w: np.ndarray) -> float:
        return float(((kernel @ w - y) ** 2).mean() + 0.35 * w @ kernel @ w)

    steps = 1e-5 * np.eye(4)
    gradient = np.array([(objective(weights + h) - objective(weights - h)) / 2e-5 for h in steps])
    sizes = np.linalg.norm(2 / 4 * kernel @ (kernel @ weights - y)) + np.linalg.norm(0.7 * kernel @ weights)
    assert slope(kernel, y, weights, 0.7) == pytest.approx(np.linalg.norm(gradient) / sizes, rel=1e-6)


def test_sgd_solves_the_delta_functions_closed_form() -> None:
    y = np.array([1.0, -2.0, 0.5])
    assert trained(np.eye(3), y, 500, np.random.default_rng(0)) == pytest.approx(y, abs=EXACT)


def test_the_gap_of_a_majority_vote_property() -> None:
    """With many samples every cell votes for the more frequent label, and the gap tends to 0."""
    random = np.random.default_rng(0)
    assert abs(majority_gap(1_000_000, random)) < 4 * math.sqrt(0.3 * 0.7 / 1e6)
    assert np.mean([majority_gap(20, random) for _ in range(500)]) > 0.05  # few samples overfit


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_terms_of_noise_injection_property(loss: str) -> None:
    """For a linear network the Laplacian is 0, and the squared loss rises by lambda^2 ||J||_F^2 at every lambda."""
    network = fp.models.mlp((6,), widths=(), classes=3)
    data = fp.LabelledData(torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1]))
    found = measure(network, data, loss=loss, draws=50)
    assert found["laplacian"].abs().max() < EXACT
    assert (found["printed"] - found["trace"]).abs().max() < EXACT
    if loss == "squared":
        weights = next(network.parameters()).detach().double()
        assert found["printed"].to_numpy() == pytest.approx(float(weights.square().sum()), rel=1e-6)
        assert ((found["rise"] - found["printed"]).abs() <= 4.5 * found["error"]).all()
