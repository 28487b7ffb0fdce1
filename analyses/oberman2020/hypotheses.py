"""Delta functions and Gaussians, trained by SGD: Example 10.2."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analyses.oberman2020.kernels import gaussian
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact, ratio
from analyses.study import Study

WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of the Gaussian, in sides of the unit square
TUNED = "The width is to be tuned: the {} one has a larger test loss than the best"
MORE = " (by more than 10 %)"
TARGETS = {  # y on the unit square
    "constant": lambda x: np.ones(len(x)),  # the source's
    "wave": lambda x: np.sin(2 * np.pi * x[:, 0]) * np.sin(2 * np.pi * x[:, 1]),  # ours
}


@dataclass(frozen=True)
class Classes:
    """Sizes of Example 10.2; the source states none."""

    samples: tuple[int, ...]  # m
    steps: int  # of SGD
    seeds: int


def trained(features: np.ndarray, y: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
    """Weights after SGD on (1/m) sum_i (f(x_i) - y_i)^2 from 0: batches of 16, rate 1 / (2 max ||g_i||^2)."""
    weights, rate = np.zeros(features.shape[1]), 0.5 / float((features**2).sum(axis=1).max())
    for _ in range(steps):
        drawn = random.integers(len(features), size=16)
        batch = features[drawn]
        weights -= rate * 2 * batch.T @ (batch @ weights - y[drawn]) / 16
    return weights


def hypotheses(settings: Classes, study: Study) -> pd.DataFrame:  # noqa: ARG001
    """Training and test loss of the delta functions (width 0) and of Gaussians by width."""
    rows: list[dict[str, Any]] = []
    for samples, seed, target in itertools.product(settings.samples, range(settings.seeds), TARGETS):
        random = np.random.default_rng([samples, seed])
        x, fresh = random.uniform(size=(samples, 2)), random.uniform(size=(2000, 2))
        y, expected = TARGETS[target](x), TARGETS[target](fresh)
        for width in (0.0, *WIDTHS):
            features = gaussian(x, x, width) if width else np.eye(samples)
            weights = trained(features, y, settings.steps, random)
            predicted = gaussian(fresh, x, width) @ weights if width else np.zeros(len(fresh))
            train, test = ((features @ weights - y) ** 2).mean(), ((predicted - expected) ** 2).mean()
            where = {"target": target, "samples": samples, "seed": seed, "width": width}
            rows.append({**where, "train": train, "test": test})
    return pd.DataFrame(rows)


def hypothesis_rules(frame: pd.DataFrame) -> list[Outcome]:
    """Zero training loss in both classes; the test loss, and the width that is best."""
    printed, wave = (frame[frame["target"] == target] for target in TARGETS)
    delta = printed[printed["width"] == 0]
    tests = printed.pivot_table(index=["samples", "seed"], columns="width", values="test")
    best = tests[list(WIDTHS)].min(axis=1)
    smooth = printed[printed["width"] > 0]
    at_best = smooth.loc[smooth.groupby(["samples", "seed"])["test"].idxmin(), "train"]
    outcomes = [
        _most("Delta functions: SGD comes to a training loss below 1e-6", delta["train"], 1e-6),
        _most("Delta functions: the test loss is 1 (largest difference)", (delta["test"] - 1).abs(), 1e-12),
        _most("Gaussians at the best width: the training loss is below 0.01", at_best, 0.01),
    ]
    for samples in sorted(frame["samples"].unique()):
        rule = f"m = {samples}: delta functions have more than 10 times the test loss of Gaussians at the best width"
        outcomes.append(ratio(rule, tests.loc[samples][0.0], best[samples], above=10))
    waves = wave.pivot_table(index=["samples", "seed"], columns="width", values="test")[list(WIDTHS)]
    for name, end in (("narrowest", min(WIDTHS)), ("widest", max(WIDTHS))):
        outcomes.append(_interior(TUNED.format(name), tests[end], best, beside=name == "widest"))
        outcomes.append(_interior(TUNED.format(name) + ", y = a wave", waves[end], waves.min(axis=1), beside=True))
    few, many = (waves.loc[end(frame["samples"])].idxmin(axis=1).astype(float) for end in (min, max))
    rule = "The best width falls from the fewest to the most samples, y = a wave (log)"
    outcomes.append(difference(rule, np.log(few) - np.log(many), beside=True))
    return outcomes


def _most(rule: str, values: pd.Series, tolerance: float) -> Outcome:
    return exact(rule, float(values.max()), tolerance=tolerance, problems=len(values))


def _interior(rule: str, end: pd.Series, best: pd.Series, *, beside: bool = False) -> Outcome:
    """The ratio of the test losses is above 1.1; over all sizes and seeds."""
    return ratio(rule + MORE, end, best, above=1.1, beside=beside)


REPRODUCTION = Reproduction(
    id="O20-Ex10.2",
    source="Oberman (2020), Example 10.2",
    claim="SGD on a class of delta functions trains to loss 0 and does not generalize; Gaussians in their place can, "
    "and their width is a regularization parameter that can be tuned.",
    presets={
        "quick": Classes(samples=(30, 100), steps=1000, seeds=3),
        "cpu": Classes(samples=(50, 200, 1000), steps=8000, seeds=5),
        "paper": Classes(samples=(50, 200, 1000), steps=8000, seeds=5),
    },
    at_scale=("cpu", "paper"),
    table=hypotheses,
    rules=hypothesis_rules,
    reasons={
        TUNED.format("widest") + MORE: "The source's y is constant on the square, so a kernel that is nearly constant "
        "is the best of all, at every m and seed. On a wave in the place of the constant, the widest kernel is worse "
        "than the best, by the last rule: an optimal width inside the range needs a target that varies."
    },
    differs="The source states neither m nor rate nor number of steps. A test point is never a training point, so the "
    "delta functions predict 0 by construction.",
    cost="1 min",
)
