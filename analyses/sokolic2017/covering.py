"""S17 section II-B, eqs 12, 13, 38 and 44: covering numbers and the bounds that use them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd
import torch
from torch import Tensor

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact
from analyses.study import Study

DIMENSION = 8  # of the inputs
COMPONENTS, RANK = 3, 2  # Gaussian mixture: L and k
ATOMS, SPARSITY = 5, 2  # dictionary: L and k
RADII = (1.0, 0.5, 0.25)  # rho, in units of the data's radius
CONSTANT = 2 * math.pi  # C_M of the unit circle, of dimension 1
SAMPLES, CLASSES, DELTA = 1000, 10, 0.05  # m, N_y, delta of eqs 12, 13 and 38
DEPTHS = (2, 3, 4, 5)  # of eq. 44
NORM = 28.0  # Frobenius norm of each layer in eq. 44: sqrt(784), as of unit rows


@dataclass(frozen=True)
class Settings:
    """Points of each data model."""

    points: int


def in_ball(points: int, dimension: int, seed: int) -> Tensor:
    """Uniform points in the unit ball."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(points, dimension, dtype=torch.float64, generator=generator)
    radius = torch.rand(points, 1, dtype=torch.float64, generator=generator) ** (1 / dimension)
    return radius * found / found.norm(dim=1, keepdim=True)


def subspaces(count: Sequence[Tensor], points: int) -> Tensor:
    """Points of the unit ball in each of several subspaces, whose orthonormal columns are given."""
    return torch.cat([in_ball(points, basis.shape[1], seed) @ basis.T for seed, basis in enumerate(count)])


def data_models(points: int) -> dict[str, tuple[Tensor, object]]:
    """Points and covering by data model: mixture of Gaussians cut to the unit ball, sparse signals, circle."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(COMPONENTS, DIMENSION, RANK, dtype=torch.float64, generator=generator)
    mixture = [torch.linalg.qr(matrix).Q for matrix in square]
    atoms = torch.linalg.qr(torch.randn(DIMENSION, ATOMS, dtype=torch.float64, generator=generator)).Q
    sparse = [atoms[:, list(pair)] for pair in torch.combinations(torch.arange(ATOMS), SPARSITY).tolist()]
    angle = 2 * math.pi * torch.rand(points, dtype=torch.float64, generator=generator)
    return {
        "Gaussian mixture": (subspaces(mixture, points), fp.bounds.gaussian_mixture(components=COMPONENTS, rank=RANK)),
        "sparse signals": (subspaces(sparse, points), fp.bounds.sparse(atoms=ATOMS, sparsity=SPARSITY)),
        "manifold": (
            torch.stack([angle.cos(), angle.sin()], 1), fp.bounds.manifold(constant=CONSTANT, dimension=1),
        ),
    }  # fmt: skip


def balls(points: Tensor, radius: float) -> int:
    """The number of balls of a greedy cover, whose centers are points at distances above the radius."""
    left, count = points, 0
    while len(left):
        left = left[(left - left[0]).norm(dim=1) > radius]
        count += 1
    return count


def closed_forms(model: str, radius: float) -> float:
    """The printed covering number."""
    return {
        "Gaussian mixture": COMPONENTS * (1 + 2 / radius) ** RANK,
        "sparse signals": math.comb(ATOMS, SPARSITY) * (1 + 2 / radius) ** SPARSITY,
        "manifold": CONSTANT / radius,
    }[model]


def table(settings: Settings, _study: Study) -> pd.DataFrame:
    """Greedy covers beside the printed numbers, and the bounds of the package beside the printed formulas."""
    rows = []
    for (model, (points, covering)), radius in product(data_models(settings.points).items(), RADII):
        printed = closed_forms(model, radius)
        rows.append({"part": "covering", "name": model, "radius": radius, "printed": printed,
                     "value": math.exp(covering.log_number(radius)), "balls": balls(points, radius)})  # fmt: skip
    manifold = fp.bounds.manifold(constant=CONSTANT, dimension=3)
    for margin in RADII:
        first = math.sqrt(math.log(2) * CLASSES * 2**4 * CONSTANT**3 / (margin**3 * SAMPLES))
        printed = {"split": first + math.sqrt(2 * math.log(1 / DELTA) / SAMPLES), "leading": first}
        for (form, expected), equation in zip(printed.items(), ("eqs 13 and 38", "eq. 12"), strict=True):
            found = fp.bounds.robustness(
                samples=SAMPLES, empirical=0.0, delta=DELTA, margin=margin, prior=1, classes=CLASSES,
                covering=manifold, form=form,
            ).value  # fmt: skip
            rows.append({"part": "bound", "name": equation, "radius": margin, "printed": expected, "value": found})
    for depth in DEPTHS:
        found = fp.bounds.frobenius(samples=SAMPLES, empirical=0.0, norms=[NORM] * depth).value
        expected = 2 ** (depth - 1) * NORM**depth / math.sqrt(SAMPLES)
        rows.append({"part": "bound", "name": "eq. 44", "depth": depth, "printed": expected, "value": found})
    return pd.DataFrame(rows)


def rules(table: pd.DataFrame) -> list[Outcome]:
    """Equality with the closed forms, and covers that need no more balls."""
    error = (table["value"] / table["printed"] - 1).abs()
    covers = table[table["part"] == "covering"]
    return [
        exact(f"{name} in closed form", float(error[part.index].max()), tolerance=1e-9, problems=len(part),
              unit="relative difference")
        for name, part in (("covering numbers", covers), *table[table["part"] == "bound"].groupby("name"))
    ] + [
        exact("a greedy cover of sampled points needs at most the printed number of balls",
              float((covers["balls"] / covers["printed"]).max()), tolerance=1.0, problems=len(covers),
              unit="balls / printed number")
    ]  # fmt: skip


REPRODUCTION = Reproduction(
    id="S17-cov",
    source="Sokolic et al. (2017), section II-B, eqs 12, 13, 38, 44",
    claim="Covering numbers L (1 + 2 / rho)^k of a Gaussian mixture, binom(L, k) (1 + 2 / rho)^k of sparse signals and "
    "(C_M / rho)^k of a manifold bound the generalization error of a classifier with a margin.",
    presets={"quick": Settings(500), "cpu": Settings(20_000)},
    table=table,
    rules=rules,
    differs="Points of each model are sampled within the unit ball, as the covering numbers need; the manifold is the "
    "unit circle, with C_M = 2 pi. The source has no experiment on the numbers.",
    cost="2 s",
)
