"""Potentials with two minima of one depth, their Boltzmann density by quadrature, and histograms of Langevin chains.

U(w) = a(w_1) + sum over j >= 2 of (kappa / 2) max(0, |w_j| - h(w_1))^2, where h rises from `left` to `right` between
the two minima. The left minimum lies at w_1 < 0, the right one at w_1 > 0. The marginal density of w_1 is proportional
to exp(-a(w_1) / T) I(w_1)^(d - 1), where I(w_1) = 2 h(w_1) + sqrt(2 pi T / kappa) is the integral over one w_j.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy import integrate
from torch import Tensor

import flatprobe as fp

TEMPERATURE = 1.0  # T: the unit of U


@dataclass(frozen=True)
class Potential:
    """A potential of the family.

    Attributes:
        profile: a(w_1), the depth along the first coordinate.
        left: h at the left minimum, the half width of its flat region in each further dimension.
        right: h at the right minimum.
        curvature: kappa, of the walls.
        rise: h rises on |w_1| < rise.
        starts: intervals of w_1 in which the chains start, one half of them in each.
        extent: edges of the histogram of w_1.
    """

    profile: Callable[[Tensor], Tensor]
    left: float
    right: float
    curvature: float
    rise: float
    starts: tuple[tuple[float, float], tuple[float, float]]
    extent: tuple[float, float]

    def half_width(self, first: Tensor) -> Tensor:
        """h(w_1), a cubic between the minima."""
        x = ((first + self.rise) / (2 * self.rise)).clamp(0, 1)
        return self.left + (self.right - self.left) * x**2 * (3 - 2 * x)

    def __call__(self, w: Tensor) -> Tensor:
        """U(w), one value per row."""
        beyond = (w[:, 1:].abs() - self.half_width(w[:, :1])).clamp_min(0)
        return self.profile(w[:, 0]) + self.curvature / 2 * (beyond**2).sum(1)

    def marginal(self, first: float, dimensions: int) -> float:
        """The Boltzmann density of w_1, not normalized."""
        x = torch.tensor(first, dtype=torch.float64)
        inner = 2 * self.half_width(x) + (2 * np.pi * TEMPERATURE / self.curvature) ** 0.5
        return float(torch.exp(-self.profile(x) / TEMPERATURE) * inner ** (dimensions - 1))

    def shares(self, dimensions: int, edges: np.ndarray) -> np.ndarray:
        """The Boltzmann mass of each bin of w_1, by adaptive quadrature."""
        mass = [integrate.quad(self.marginal, low, high, (dimensions,))[0] for low, high in pairwise(edges)]
        return np.array(mass) / sum(mass)

    def plane(self, edges: list[np.ndarray], *, parts: int = 10) -> np.ndarray:
        """The Boltzmann mass of each bin of (w_1, w_2), by the midpoint rule with parts x parts points per bin."""
        points = [_midpoints(edge, parts) for edge in edges]
        w = torch.cartesian_prod(*(torch.from_numpy(values) for values in points))
        density = np.exp(-self(w).numpy() / TEMPERATURE).reshape(len(edges[0]) - 1, parts, len(edges[1]) - 1, parts)
        areas = np.diff(edges[0])[:, None] * np.diff(edges[1])
        mass = density.mean((1, 3)) * areas
        return mass / mass.sum()

    def start(self, chains: int, dimensions: int) -> Tensor:
        """Half of the chains near each minimum, at even distances along w_1, and 0 in the other coordinates."""
        first = torch.cat([torch.linspace(*interval, chains // 2, dtype=torch.float64) for interval in self.starts])
        start = torch.zeros(chains, dimensions, dtype=torch.float64)
        start[::2, 0], start[1::2, 0] = first[: chains // 2], first[chains // 2 :]  # so that each group has both
        return start


@dataclass(frozen=True, kw_only=True)
class Chains:
    """Settings of the runs.

    Attributes:
        dimensions: numbers of dimensions d.
        rates: r, in units of w^2 / U; the last must be half of the first.
        chains: side by side.
        groups: independent groups of chains, for standard errors.
        burn_in: time r t that is not kept.
        time: time r t of the whole run.
        spacing: time between kept positions.
        bins: of the histograms, per axis; even, so that an edge lies between the minima.
    """

    dimensions: tuple[int, ...]
    rates: tuple[float, float]
    chains: int
    groups: int
    burn_in: float
    time: float
    spacing: float = 0.25
    bins: int = 40

    def edges(self, low: float, high: float) -> np.ndarray:
        """Edges of the bins, one of them 0."""
        below = round(self.bins * -low / (high - low))
        return np.concatenate([np.linspace(low, 0, below + 1), np.linspace(0, high, self.bins - below + 1)[1:]])

    def run(self, potential: Callable[..., Tensor], start: Tensor, rate: float, **options: object) -> np.ndarray:
        """Kept positions (draws, chains, dimensions)."""
        arguments = {"temperature": TEMPERATURE} | options
        found = fp.langevin_chains(
            potential,
            start,
            rate=rate,
            steps=round(self.time / rate),
            burn_in=round(self.burn_in / rate),
            thinning=round(self.spacing / rate),
            **arguments,
        )
        return found.positions.numpy()

    def histograms(self, positions: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
        """Shares per group and bin (groups, bins of w_1[, bins of w_2]); positions beyond the edges count in no bin."""
        draws, chains, dimensions = positions.shape
        groups = positions[:, : chains - chains % self.groups].reshape(draws, self.groups, -1, dimensions)
        parts = [groups[:, number, :, : len(edges)].reshape(-1, len(edges)) for number in range(self.groups)]
        return np.stack([np.histogramdd(part, edges)[0] / len(part) for part in parts])


def _midpoints(edges: np.ndarray, parts: int) -> np.ndarray:
    inside = (np.arange(parts) + 0.5) / parts
    return (edges[:-1, None] + np.diff(edges)[:, None] * inside).ravel()


def tidy(shares: np.ndarray, edges: list[np.ndarray], **columns: object) -> pd.DataFrame:
    """One row per group and bin that is not empty: the columns, `group`, the bin's centre `w1`[, `w2`] and `share`."""
    centres = [(edge[:-1] + edge[1:]) / 2 for edge in edges]
    places = np.nonzero(shares)
    held = {f"w{axis + 1}": centre[places[axis + 1]] for axis, centre in enumerate(centres)}
    return pd.DataFrame({**columns, "group": places[0], **held, "share": shares[places]})


def lengths_table(settings: Chains, potential: Potential) -> pd.DataFrame:
    """Histograms of w_1 for each number of dimensions: by quadrature (rate 0), and of chains at two rates."""
    edges = settings.edges(*potential.extent)
    parts = []
    for d in settings.dimensions:
        parts.append(tidy(potential.shares(d, edges)[None], [edges], dimensions=d, rate=0.0))
        for rate in settings.rates:
            positions = settings.run(potential, potential.start(settings.chains, d), rate)
            parts.append(tidy(settings.histograms(positions, [edges]), [edges], dimensions=d, rate=rate))
    return pd.concat(parts, ignore_index=True)


def right_masses(frame: pd.DataFrame, by: list[str]) -> pd.Series:
    """The mass at w_1 > 0, per group of chains."""
    right = frame.assign(share=frame["share"].where(frame["w1"] > 0, 0.0))
    return right.groupby([*by, "group"])["share"].sum() / frame.groupby([*by, "group"])["share"].sum()


def extrapolated(masses: pd.Series) -> pd.Series:
    """The limit of rate 0 of masses by rate and group, linear in the rate: 2 m(r / 2) - m(r), per group."""
    high, low = sorted((rate for rate in masses.index.unique("rate") if rate > 0), reverse=True)
    return 2 * masses.xs(low, level="rate") - masses.xs(high, level="rate")


def deviation(values: pd.Series, expected: float) -> tuple[float, float]:
    """The difference of the mean of the groups from the expected value, in standard errors; and the standard error."""
    error = float(values.std(ddof=1) / len(values) ** 0.5)
    return abs(float(values.mean()) - expected) / error, error
