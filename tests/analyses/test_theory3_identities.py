"""Closed forms and slow references: Boltzmann shares, the worst common perturbation, path products."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate

from analyses.theory3_2017.langevin_dimensions import DEGENERATE, WIDE
from analyses.theory3_2017.langevin_potentials import Potential
from analyses.theory3_2017.robust_networks import problem
from analyses.theory3_2017.robust_optimization import draw, worst_common

EDGES = np.linspace(-4, 4, 9)


@pytest.mark.parametrize("potential", [WIDE, DEGENERATE])
def test_closed_form_both_minima_have_depth_0(potential: Potential) -> None:
    minima = torch.tensor([[-1.0, 0.3], [1.0, 0.9]] if potential is WIDE else [[-2.0, 0.0], [2.0, 0.9]]).double()
    assert torch.equal(potential(minima), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("potential", [WIDE, DEGENERATE])
def test_slow_reference_the_shares_are_those_of_the_density_in_two_and_three_dimensions(potential: Potential) -> None:
    def mass(low: float, high: float, dimensions: int) -> float:
        """The integral of exp(-U) over w_1 in a bin, with the same integral over each further coordinate."""
        first = np.linspace(low, high, 401)
        other = np.linspace(-4, 4, 801)
        grid = np.stack(np.meshgrid(first, other, indexing="ij"), -1).reshape(-1, 2)
        u = potential(torch.from_numpy(grid)).numpy().reshape(401, 801)
        profile = potential.profile(torch.from_numpy(first)).numpy()
        inner = integrate.simpson(np.exp(-(u - profile[:, None])), x=other)
        return float(integrate.simpson(np.exp(-profile) * inner ** (dimensions - 1), x=first))

    for dimensions in (2, 3):
        masses = np.array([mass(low, high, dimensions) for low, high in pairwise(EDGES)])
        assert potential.shares(dimensions, EDGES) == pytest.approx(masses / masses.sum(), rel=1e-3, abs=1e-6)


def test_closed_form_the_plane_sums_to_the_line() -> None:
    fine = np.linspace(-3, 3, 61)
    plane = DEGENERATE.plane([EDGES, fine], parts=40)
    assert plane.sum(1) == pytest.approx(DEGENERATE.shares(2, EDGES), rel=2e-3, abs=1e-6)


def test_closed_form_the_shares_near_hard_walls() -> None:
    hard = Potential(WIDE.profile, 0.5, 1.0, 1e8, 0.5, WIDE.starts, WIDE.extent)
    narrow, _, wide = hard.shares(3, np.array([-1.5, -0.5, 0.5, 2.5]))
    assert wide / narrow == pytest.approx(2**3, rel=1e-3)


def test_slow_reference_the_worst_common_perturbation() -> None:
    for number in range(5):
        p = draw(number)
        residual, radius = p.y - p.x @ p.w, p.rho * float(np.linalg.norm(p.w))
        delta = np.random.default_rng(number).standard_normal((200, len(p.w)))
        for _ in range(2000):  # conditional gradient: each step cannot lower the convex loss
            gradient = -(residual - delta @ p.x.T) @ p.x
            delta = radius * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        best = ((residual - delta @ p.x.T) ** 2).mean(1).max()
        assert worst_common(residual, p.x, radius) == pytest.approx(best, rel=1e-6)


def test_closed_form_the_paths_give_the_outputs() -> None:
    loss = problem(0, 0)
    path, _ = loss.paths()
    active = (loss.x @ loss.center["first"].T > 0).double()
    torch.testing.assert_close(((active @ path) * loss.x).sum(1), loss.outputs(loss.center), rtol=1e-12, atol=1e-12)
