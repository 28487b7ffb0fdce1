"""Kernel regression, and its norm as a sum of derivatives: section 4 and Example 10.1."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.kernel_ridge import KernelRidge

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact
from analyses.sides import below, equal, side
from analyses.study import Study

STRENGTHS = tuple(10.0**power for power in range(-6, 3))  # lambda of section 4
SCALED = (
    "Printed: (M + lambda I) w = y minimizes (EL-K), (1/m) sum (f(x_i) - y_i)^2 + (lambda / 2) ||w||_H^2 (gradient)"
)


@dataclass(frozen=True)
class Problems:
    """Random problems of kernel regression."""

    problems: int
    samples: int


def gaussian(one: np.ndarray, other: np.ndarray, width: float = 1.0) -> np.ndarray:
    """exp(-||x - x'||^2 / (2 s^2))."""
    kernel: np.ndarray = np.exp(-cdist(one, other, "sqeuclidean") / (2 * width**2))
    return kernel


def regression(settings: Problems, study: Study) -> pd.DataFrame:  # noqa: ARG001 - nothing is trained
    """Solutions, condition numbers and sensitivities by lambda."""
    rows: list[dict[str, Any]] = []
    for problem in range(settings.problems):
        random = np.random.default_rng(problem)
        x, y = random.uniform(size=(settings.samples, 2)), random.normal(size=settings.samples)
        kernel, change = gaussian(x, x, 0.1), random.normal(size=settings.samples)
        values = np.linalg.eigvalsh(kernel)
        for strength in STRENGTHS:
            where = {"problem": problem, "strength": strength}
            system = kernel + strength * np.eye(len(x))
            weights = np.linalg.solve(system, y)
            peer = KernelRidge(alpha=strength, kernel="precomputed").fit(kernel, y).dual_coef_
            condition = (values[-1] + strength) / (values[0] + strength)
            moved = np.linalg.norm(np.linalg.solve(system, change)) / np.linalg.norm(change)
            scaled = np.linalg.solve(kernel + len(x) * strength / 2 * np.eye(len(x)), y)
            rows += [
                side("peer", np.abs(weights - peer).max() / np.abs(weights).max(), 0, **where),
                side("condition", np.linalg.cond(system), condition, **where),
                side("sensitivity", moved, 1 / (values[0] + strength), **where),
                side("printed", slope(kernel, y, weights, strength), 0, **where),
                side("scaled", slope(kernel, y, scaled, strength), 0, **where),
            ]
    return pd.DataFrame(rows)


def slope(kernel: np.ndarray, y: np.ndarray, weights: np.ndarray, strength: float) -> float:
    """Norm of the gradient of (EL-K) in w, over the sum of the norms of its two terms."""
    fit, size = 2 / len(y) * kernel @ (kernel @ weights - y), strength * kernel @ weights
    return float(np.linalg.norm(fit + size) / (np.linalg.norm(fit) + np.linalg.norm(size)))


def regression_rules(frame: pd.DataFrame) -> list[Outcome]:
    """Conditioning and sensitivity fall with lambda; the solution of (EL-K)."""

    def most(statement: str, rule: str, tolerance: float, *, beside: bool = False) -> Outcome:
        found = frame.loc[frame["statement"] == statement, "left"]
        return exact(rule, float(found.max()), tolerance=tolerance, problems=len(found), beside=beside)

    def falls(statement: str) -> tuple[float, int]:
        found = frame[frame["statement"] == statement].sort_values(["problem", "strength"])
        return float(np.log(found["left"]).groupby(found["problem"]).diff().max()), found["problem"].nunique()

    rises = {statement: falls(statement) for statement in ("condition", "sensitivity")}
    return [
        most("peer", "(M + lambda I)^-1 y is scikit-learn's KernelRidge", 1e-6),
        equal(
            frame, "condition", "The condition number is (sigma_max + lambda) / (sigma_min + lambda)", tolerance=1e-6
        ),
        *[
            exact(f"The {name} falls with lambda (largest rise, log)", worst, tolerance=0, problems=count)
            for name, (worst, count) in rises.items()
        ],
        below(frame, "sensitivity", "||dw|| / ||dy|| <= 1 / (sigma_min + lambda)", tolerance=1e-6),
        most("printed", SCALED, 1e-6, beside=True),
        most("scaled", "Corrected: (M + (m lambda / 2) I) w = y minimizes (EL-K) (gradient)", 1e-6),
    ]


ORDERS = 80  # terms of the sum; they fall like 2^-n
PLAIN = "The sum over n of ||f^(n)||^2 / (2^n n!) is the squared norm ||f||_H^2 = w^T M w, with the constant 1"


@dataclass(frozen=True)
class Functions:
    """Random functions of the kernel's space."""

    functions: int


def series(centres: np.ndarray, weights: np.ndarray) -> float:
    """sum_n ||f^(n)||^2 / (2^n n!) of f(x) = sum_i w_i exp(-(x - x_i)^2 / 2), by Hermite functions.

    The n-th derivative of exp(-t^2 / 2) is (-1)^n He_n(t) exp(-t^2 / 2); scaled by 1 / sqrt(2^n n!) in the recursion.
    """
    x = np.linspace(-15, 15, 3001)
    t = x[:, None] - centres
    before, now, total = np.zeros_like(t), np.exp(-(t**2) / 2), 0.0
    for order in range(ORDERS):
        total += float(((now @ weights) ** 2).sum() * (x[1] - x[0]))
        before, now = now, (t * now - order / math.sqrt(2 * max(order, 1)) * before) / math.sqrt(2 * (order + 1))
    return total


def fourier(centres: np.ndarray, weights: np.ndarray) -> float:
    """int |f^(y)|^2 exp(y^2 / 2) dy by the fast Fourier transform, f^ with the factor 1 / sqrt(2 pi); |y| <= 7."""
    x = np.linspace(-20, 20, 4096, endpoint=False)
    values = np.exp(-((x[:, None] - centres) ** 2) / 2) @ weights
    step, y = x[1] - x[0], 2 * np.pi * np.fft.fftfreq(len(x), x[1] - x[0])
    squares = np.abs(np.fft.fft(values) * step) ** 2 / (2 * np.pi)
    kept = np.abs(y) <= 7
    return float((squares[kept] * np.exp(y[kept] ** 2 / 2)).sum() * 2 * np.pi / (len(x) * step))


def norms(settings: Functions, study: Study) -> pd.DataFrame:  # noqa: ARG001
    """The norm in three ways."""
    rows = []
    for number in range(settings.functions):
        random = np.random.default_rng(number)
        centres, weights = random.uniform(-3, 3, size=6), random.normal(size=6)
        squared = float(weights @ gaussian(centres[:, None], centres[:, None]) @ weights)
        total, where = series(centres, weights), {"function": number}
        rows.append(side("fourier", total, fourier(centres, weights), **where))
        rows.append(side("constant", total, math.sqrt(2 * math.pi) * squared, **where))
        rows.append(side("plain", total, squared, **where))
    return pd.DataFrame(rows)


def norm_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The two sides of the example, and the constant between them and the kernel's norm."""
    return [
        equal(frame, "fourier", "int |f^|^2 / G^ = sum_n ||f^(n)||^2 / (2^n n!), with C = 1", tolerance=1e-6),
        equal(frame, "constant", "Both are sqrt(2 pi) w^T M w in one dimension, so (EL-K) is (EL-R)", tolerance=1e-6),
        equal(frame, "plain", PLAIN, tolerance=1e-6, beside=True),
    ]


REPRODUCTIONS = (
    Reproduction(
        id="O20-4",
        source="Oberman (2020), section 4",
        claim="The minimizer of the kernel regression is (M + lambda I)^-1 y, up to the scale of lambda; lambda "
        "improves the condition number, so the weights are less sensitive to changes in the data.",
        presets={"quick": Problems(3, 30), "cpu": Problems(20, 100), "paper": Problems(20, 100)},
        at_scale=("quick", "cpu", "paper"),
        table=regression,
        rules=regression_rules,
        reasons={
            SCALED: "With the factors 1/m and lambda / 2 of (EL-K) and the quadratic loss (f - y)^2, the gradient "
            "vanishes "
            "at (M + (m lambda / 2) I) w = y, which the last rule tests. The printed system is that of "
            "sum (f(x_i) - y_i)^2 + lambda ||w||_H^2: the same family, another lambda."
        },
        differs="The source names no data: ours are Gaussian kernels of width 0.1 on random points of the unit square.",
        cost="2 s",
    ),
    Reproduction(
        id="O20-Ex10.1",
        source="Oberman (2020), Example 10.1",
        claim="For the Gaussian kernel the regularization is sum_n ||grad^n f||^2 / (2^n n!).",
        presets={"quick": Functions(5), "cpu": Functions(100), "paper": Functions(100)},
        at_scale=("quick", "cpu", "paper"),
        table=norms,
        rules=norm_rules,
        reasons={
            PLAIN: "The Fourier transform of the kernel has a constant C that the sum drops: the ratio is "
            "sqrt(2 pi) = 2.507 in one dimension for every f, as the rule above tests. A factor of lambda absorbs it."
        },
        differs="In one dimension, for sums of six Gaussians.",
        cost="3 s",
    ),
)
