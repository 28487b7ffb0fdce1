"""Linearized attacks and dual norms: section 8, eqs 8.3 to 8.5."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linprog

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.sides import below, equal, side
from analyses.study import Study

INPUTS, CLASSES = 20, 5
BUDGET = 1e-3  # length of the attack, within which the max loss of a linear model is linear
MINIMIZER = "Printed, below eq. 8.4: the *minimizer* is the signed gradient, and the optimal value is ||grad l||_1"
DUALS = {"linf": 1.0, "l2": 2.0}  # order of the dual norm


@dataclass(frozen=True)
class Problems:
    """Number of random linear models, and of directions that compete with the attack."""

    models: int
    directions: int


def gradient_of(passed: fp.ForwardPass) -> np.ndarray:
    """grad_x l of one sample."""
    found: np.ndarray = passed.gradient(create_graph=False).numpy()[0]
    return found


def attacks(settings: Problems, study: Study) -> pd.DataFrame:  # noqa: ARG001 - nothing is trained
    """v . grad l of the package's attacks beside the dual norm, linear programs, random directions, the rise."""
    rows: list[dict[str, Any]] = []
    random = np.random.default_rng(0)
    for model in range(settings.models):
        network = fp.models.mlp((INPUTS,), widths=(), classes=CLASSES, seed=model).double()
        inputs = torch.from_numpy(random.normal(size=(1, INPUTS)))
        # The least likely class as the label: the maximum loss is then linear around the input.
        labels = network(inputs).argmin(1).detach()
        passed = fp.ForwardPass(network, inputs, labels, loss="maximum")
        gradient, where = gradient_of(passed), {"model": model}
        for norm, order in DUALS.items():
            points, _ = fp.transforms.FGSM(BUDGET, norm=norm)(passed)
            direction = ((points - inputs) / BUDGET).numpy()[0]
            value, dual = direction @ gradient, np.linalg.norm(gradient, order)
            rise = float(passed.losses_at(points).detach() - passed.losses.detach()) / BUDGET
            rows.append(side(f"{norm} attack", value, dual, **where))
            rows.append(side(f"{norm} rise", rise, dual, **where))
            rows.append(
                side(f"{norm} penalty", float(fp.penalties.GradientDualNorm(norm)(passed).detach()), dual, **where)
            )
            rows.append(side(f"{norm} length", np.linalg.norm(direction, np.inf if norm == "linf" else 2), 1, **where))
            drawn = random.normal(size=(settings.directions, INPUTS))
            drawn /= np.linalg.norm(drawn, np.inf if norm == "linf" else 2, axis=1, keepdims=True)
            rows.append(side(f"{norm} random", (drawn @ gradient).max(), dual, **where))
        for sense, sign in (("maximum", -1), ("minimum", 1)):
            program = linprog(sign * gradient, bounds=[(-1, 1)] * INPUTS)
            rows.append(side(sense, sign * program.fun, np.abs(gradient).sum(), **where))
        for order in (1.5, 4.0):  # of the attack's norm
            other = order / (order - 1)
            best = np.sign(gradient) * np.abs(gradient) ** (other - 1)
            best /= np.linalg.norm(best, order)
            rows.append(side("generic", best @ gradient, np.linalg.norm(gradient, other), order=order, **where))
    return pd.DataFrame(rows)


def attack_rules(frame: pd.DataFrame) -> list[Outcome]:
    """Attacks attain the dual norm, and nothing in the ball exceeds it."""
    names = {"linf": "eq. 8.3, linf: v . grad l = ||grad l||_1", "l2": "eq. 8.5, l2: v . grad l = ||grad l||_2"}
    rules = []
    for norm, name in names.items():
        rules += [
            equal(frame, f"{norm} attack", f"{name}, for the package's FGSM", tolerance=1e-6),
            equal(frame, f"{norm} length", f"{norm}: the attack has the length 1", tolerance=1e-6),
            equal(frame, f"{norm} rise", f"{norm}: the max loss of a linear model rises by it", tolerance=1e-6),
            equal(frame, f"{norm} penalty", f"{norm}: the package's penalty is this dual norm", tolerance=1e-6),
            below(frame, f"{norm} random", f"{norm}: no random direction of length 1 has a larger value"),
        ]
    return [
        *rules,
        equal(frame, "maximum", "Corrected eq. 8.4: the maximum over the linf ball is ||grad l||_1", tolerance=1e-6),
        equal(frame, "minimum", MINIMIZER, tolerance=1e-6, beside=True),
        equal(frame, "generic", "lp attacks: the maximum is the dual norm, p = 1.5 and 4", tolerance=1e-6),
    ]


REPRODUCTION = Reproduction(
    id="O20-8",
    source="Oberman (2020), section 8, eqs 8.3 to 8.5",
    claim="The linearized attack of length 1 has the optimal value ||grad l||_1 in linf and ||grad l||_2 in l2: the "
    "dual "
    "norm of the gradient.",
    presets={"quick": Problems(20, 200), "cpu": Problems(500, 2000), "paper": Problems(500, 2000)},
    at_scale=("quick", "cpu", "paper"),
    table=attacks,
    rules=attack_rules,
    reasons={
        MINIMIZER: "The minimum over the ball is -||grad l||_1, at minus the signed gradient: a relative difference "
        "of 2 in "
        "all problems, by linear programming. Eq. 8.4 is a maximum; the rule above tests it on the same problems."
    },
    cost="5 s",
)
