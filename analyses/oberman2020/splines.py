"""Cubic splines as regularized interpolation: Example 3.1 and Table 1."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import (
    Akima1DInterpolator,
    BarycentricInterpolator,
    CubicSpline,
    PchipInterpolator,
    PPoly,
    make_smoothing_spline,
)

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact
from analyses.sides import below, equal, side
from analyses.study import Study

POINTS = 9  # data points on [0, 1]; the source names no data
STRENGTHS = tuple(10.0**power for power in range(-12, 5))  # lambda of the soft constraint
DRAWN = (1e-7, 1e-5, 1e-3)  # strengths in the figure
WEAK = "Printed: H = {f and f' continuous} alone determines the interpolant (largest distance from the spline)"


@dataclass(frozen=True)
class Problems:
    """Numbers of data sets and of random interpolants per data set."""

    sets: int
    interpolants: int


def energy(curve: PPoly) -> float:
    """int (f'')^2 dx over [0, 1], exact by three Gauss points on each piece, where f'' is a polynomial."""
    second = curve.derivative(2)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    left, right = curve.x[:-1, None], curve.x[1:, None]
    places = (left + right) / 2 + (right - left) / 2 * nodes
    return float(((right - left) / 2 * weights * second(places) ** 2).sum())


def interpolants(x: np.ndarray, y: np.ndarray, count: int, random: np.random.Generator) -> list[PPoly]:
    """Splines through the data and random values half-way between the data."""
    middle = (x[:-1] + x[1:]) / 2
    spline, order = CubicSpline(x, y, bc_type="natural"), np.argsort(np.concatenate([x, middle]))
    found = []
    for _ in range(count):
        values = spline(middle) + random.normal(size=len(middle)) * random.uniform(0.01, 0.5)
        found.append(CubicSpline(np.concatenate([x, middle])[order], np.concatenate([y, values])[order]))
    return found


def splines(settings: Problems, study: Study) -> pd.DataFrame:  # noqa: ARG001 - nothing is trained
    """Energies of interpolants beside the natural spline's; the soft path; curves of the first data set."""
    rows: list[dict[str, Any]] = []
    for number in range(settings.sets):
        random = np.random.default_rng(number)
        x = np.sort(
            np.concatenate([[0, 1], (np.arange(1, POINTS - 1) + random.uniform(-0.3, 0.3, POINTS - 2)) / POINTS])
        )
        y = random.normal(size=POINTS)
        spline = CubicSpline(x, y, bc_type="natural")
        least, where = energy(spline), {"set": number}
        others = [
            *interpolants(x, y, settings.interpolants, random),
            CubicSpline(x, y),
            CubicSpline(x, y, bc_type="clamped"),
        ]
        for other in others:
            rows.append(side("energy", least, energy(other), **where))
            rest = PPoly.construct_fast(_on(other.x, other) - _on(other.x, spline), other.x)
            rows.append(side("orthogonal", energy(other), least + energy(rest), **where))
            rows.append(side("interpolates", np.abs(other(x) - y).max(), 0, **where))
        fine = np.linspace(0, 1, 1001)
        for name, other in {"Akima": Akima1DInterpolator(x, y), "PCHIP": PchipInterpolator(x, y)}.items():
            rows.append(side("once differentiable", np.abs(other(fine) - spline(fine)).max(), 0, name=name, **where))
            rows.append(side("energy", least, energy(other), name=name, **where))
        rows += _soft(x, y, spline, where)
        if number == 0:
            rows += _curves(x, y, spline, others)
    return pd.DataFrame(rows)


def _on(knots: np.ndarray, curve: PPoly) -> np.ndarray:
    """Coefficients of a piecewise cubic on a finer partition, by its derivatives at the left ends."""
    left = np.nextafter(knots[:-1], 1)  # of two pieces that meet in a knot, the right one
    return np.stack([curve(left, 3) / 6, curve(left, 2) / 2, curve(left, 1), curve(left)])


def _soft(x: np.ndarray, y: np.ndarray, spline: PPoly, where: dict[str, Any]) -> list[dict[str, Any]]:
    """Loss and energy along the path of lambda, and the distances from its two ends."""
    rows, fine = [], np.linspace(0, 1, 201)
    for strength in STRENGTHS:
        curve = make_smoothing_spline(x, y, lam=strength)
        loss = float(((curve(x) - y) ** 2).mean())
        rows.append(side("path", loss, energy(PPoly.from_spline(curve)), strength=strength, **where))
    line = np.polynomial.Polynomial.fit(x, y, 1)
    hard, soft = make_smoothing_spline(x, y, lam=min(STRENGTHS)), make_smoothing_spline(x, y, lam=max(STRENGTHS))
    rows.append(side("hard end", np.abs(hard(fine) - spline(fine)).max(), 0, **where))
    rows.append(side("line", np.abs(soft(fine) - line(fine)).max(), 0, **where))
    return rows


def _curves(x: np.ndarray, y: np.ndarray, spline: PPoly, others: list[PPoly]) -> list[dict[str, Any]]:
    fine = np.linspace(0, 1, 201)
    drawn = {"natural spline": spline, **{f"interpolant {k}": other for k, other in enumerate(others[:4])}}
    drawn |= {"PCHIP": PchipInterpolator(x, y), "polynomial": BarycentricInterpolator(x, y)}
    drawn |= {f"lambda {strength:g}": make_smoothing_spline(x, y, lam=strength) for strength in DRAWN}
    rows = [
        {"statement": "curve", "name": name, "x": a, "y": b}
        for name, f in drawn.items()
        for a, b in zip(fine, f(fine), strict=True)
    ]
    return rows + [{"statement": "data", "x": a, "y": b} for a, b in zip(x, y, strict=True)]


def spline_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The natural spline has the least energy; the soft constraint leads from it to the line."""

    def most(statement: str, rule: str, tolerance: float) -> Outcome:
        found = frame.loc[frame["statement"] == statement, "left"]
        return exact(rule, float(found.max()), tolerance=tolerance, problems=len(found))

    path = frame[frame["statement"] == "path"].sort_values(["set", "strength"])
    falls = -path.groupby("set")["left"].diff().min()
    energies = path["right"] / path["right"].abs().groupby(path["set"]).transform("max")
    rises = energies.groupby(path["set"]).diff().max()
    once = frame.loc[frame["statement"] == "once differentiable", "left"]
    return [
        below(frame, "energy", "The natural spline has at most the energy int f''^2 of every other interpolant"),
        most("interpolates", "The other curves interpolate (largest error)", 1e-9),
        equal(frame, "orthogonal", "int g''^2 = int s''^2 + int (g - s)''^2 for every interpolant g", tolerance=1e-6),
        most("hard end", "Table 1, soft: lambda -> 0 gives the interpolating spline (largest distance)", 1e-5),
        most("line", "Table 1, soft: lambda -> infinity gives the line of least squares (largest distance)", 1e-4),
        exact(
            "Along lambda the loss rises (largest fall)", float(falls), tolerance=1e-9, problems=path["set"].nunique()
        ),
        exact(
            "Along lambda the energy falls (largest relative rise)",
            float(rises),
            tolerance=1e-9,
            problems=path["set"].nunique(),
        ),
        exact(WEAK, float(once.max()), tolerance=1e-9, problems=len(once), beside=True),
    ]


REPRODUCTION = Reproduction(
    id="O20-Ex3.1",
    source="Oberman (2020), Example 3.1 and Table 1",
    claim="The cubic spline minimizes int (f'')^2 among the interpolants of the data (hard constraint); a soft "
    "constraint balances loss and curvature.",
    presets={"quick": Problems(3, 20), "cpu": Problems(20, 100), "paper": Problems(20, 100)},
    at_scale=("quick", "cpu", "paper"),
    table=splines,
    rules=spline_rules,
    reasons={
        WEAK: "Akima's and Fritsch and Carlson's piecewise cubics have continuous f and f', interpolate the same data, "
        "differ from the spline, and have a larger energy. Continuity of f'' and the natural ends are needed; the "
        "rule on the energy tests the characterization by int f''^2."
    },
    differs="The source names no data: ours are 9 random points per data set.",
    cost="5 s",
)
