"""Generalization bounds hold as often as they say: simulated data, seeded."""

import math

import numpy as np
import pytest
import torch

from flatprobe import bounds
from flatprobe.utils import rng


def failures(gaps: np.ndarray, value: float, delta: float) -> None:
    """The gaps exceed the value in at most a fraction delta of the trials, within 4 standard errors."""
    trials = len(gaps)
    assert (gaps > value).mean() <= delta + 4 * math.sqrt(delta * (1 - delta) / trials)


def test_monte_carlo_hoeffding_covers_bernoulli_losses() -> None:
    generator = np.random.default_rng(0)
    for p in (0.02, 0.5, 0.9):
        means = generator.binomial(50, p, size=4000) / 50
        failures(np.abs(means - p), bounds.hoeffding(samples=50, empirical=0.5, delta=0.2).value, 0.2)


def test_monte_carlo_bits_cover_the_chosen_of_a_finite_class() -> None:
    """Eight classifiers of random answers on labels of coins; the one with the least empirical error is kept."""
    generator = np.random.default_rng(1)
    wrong = generator.random((2000, 8, 60)) < 0.5
    gaps = 0.5 - wrong.mean(2).min(1)
    bound = bounds.bits(parameters=3, bits_per_parameter=1, samples=60, empirical=0.3, delta=0.1)
    failures(gaps, bound.details["uniform"], 0.1)
    assert gaps.mean() > bound.details["uniform"] / 3  # not for want of a gap
    failures(gaps, bound.value, 0.1)


def test_monte_carlo_robustness_covers_a_rule_that_is_constant_on_its_cells() -> None:
    """Majority labels on K cells of uniform inputs: with the label, 2 K cells on which the loss is constant."""
    generator, cells, n, delta = np.random.default_rng(2), 4, 60, 0.1
    rates = np.array([0.1, 0.4, 0.5, 0.8])
    gaps = []
    for _ in range(1500):
        cell = generator.integers(cells, size=n)
        label = generator.random(n) < rates[cell]
        ones = np.bincount(cell, weights=label, minlength=cells)
        answer = 2 * ones > np.bincount(cell, minlength=cells)
        expected = np.where(answer, 1 - rates, rates).mean()
        gaps.append(abs((answer[cell] != label).mean() - expected))
    bound = bounds.robustness(samples=n, empirical=0.3, partitions=2 * cells, delta=delta, prior=1)
    failures(np.array(gaps), bound.value, delta)


@pytest.mark.parametrize("inputs", [1, 2, 50])
def test_monte_carlo_the_rademacher_term_exceeds_the_complexity_of_an_l1_ball(inputs: int) -> None:
    """sup over ||w||_1 <= B of mean_i s_i <w, x_i> is B max_j |mean_i s_i x_ij|, averaged over random signs s."""
    generator, n, B = np.random.default_rng(3), 200, 1.7
    x = generator.choice([-1.0, 1.0], size=(n, inputs))  # corners of the cube: the largest inputs
    sups = B * np.abs(generator.choice([-1.0, 1.0], size=(4000, n)) @ x / n).max(1)
    term = bounds.l1_rademacher(norms=[B], inputs=inputs, samples=n)
    standard_error = sups.std() / math.sqrt(len(sups))
    assert sups.mean() + 4 * standard_error <= term <= 2 * sups.mean()
    if inputs == 1:  # T3 prints ln d in place of ln(2 d)
        assert B * math.sqrt(2 * math.log(inputs) / n) < sups.mean()


def test_a_constrained_network_has_the_complexity_that_its_class_allows() -> None:
    """Random members of a two-layer class never correlate with signs more than the term says, on average."""
    n, d, B = 50, 6, (1.0, 2.0)
    generator = rng.generator("two layers")
    x = 2 * torch.rand(n, d, generator=generator) - 1
    corners = torch.cat([torch.eye(d), -torch.eye(d)]) * B[0]
    hidden = torch.relu(x @ corners.T)  # relu of the corners of F_1, on which the second layer puts l1 weight B_2
    signs = torch.randint(2, (2000, n), generator=generator).float() * 2 - 1
    found = float((B[1] * (signs @ hidden / n).abs().amax(1)).mean())
    assert 0 < found <= bounds.l1_rademacher(norms=B, inputs=d, samples=n)
