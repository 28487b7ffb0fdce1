"""Classification losses and their level sets: Fig. 3, eqs 2.5, 7.1 and 7.2."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact
from analyses.sides import below, equal, side
from analyses.study import Study

EPSILONS = (0.2, 1.0)  # of the two LSE losses in Fig. 3
EXTENT = 3.0  # the plane of the logits shown in Fig. 3 reaches so far; not stated
SIDE = 201  # points per side of the grid on which the bounds are checked
# The plane z_1 + z_2 + z_3 = 0 of three logits, with equal angles between the classes; the source states no slice.
PLANE = np.array([[0.0, 1.0], [-(3**0.5) / 2, -0.5], [3**0.5 / 2, -0.5]])


def losses(logits: np.ndarray, labels: np.ndarray, loss: Any) -> np.ndarray:
    """The package's losses per sample, of logits in the place of a network's."""
    passed = fp.ForwardPass(torch.nn.Identity(), torch.from_numpy(logits), torch.from_numpy(labels), loss=loss)
    return passed.losses.detach().numpy()


def smoothed(logits: np.ndarray, labels: np.ndarray, epsilon: float) -> np.ndarray:
    """g_eps(f) - f_k by the package, eqs 7.1 and 7.2."""
    return losses(logits, labels, {"name": "smoothed_maximum", "epsilon": epsilon})


def bounds(logits: np.ndarray, labels: np.ndarray, epsilon: float) -> list[dict[str, Any]]:
    """The sides of max <= g_eps <= max + eps log K, by their largest violations over the points."""
    top, found = losses(logits, labels, "maximum"), smoothed(logits, labels, epsilon)
    formula = epsilon * logsumexp(logits / epsilon, axis=1) - logits[np.arange(len(labels)), labels]
    width = epsilon * math.log(logits.shape[1])
    classes = logits.shape[1]
    entropy = losses(logits, labels, "cross_entropy")
    rows = [
        side("formula", np.abs(found - formula).max(), 0, epsilon=epsilon, classes=classes),
        side("lower", (top - found).max(), 0, epsilon=epsilon, classes=classes),
        side("upper", (found - top).max(), width, epsilon=epsilon, classes=classes),
    ]
    return rows + ([side("entropy", np.abs(found - entropy).max(), 0, classes=classes)] if epsilon == 1 else [])


@dataclass(frozen=True)
class Grid:
    """Points of the picture; the bounds are checked on 201 x 201 points."""

    pictured: int  # points per side


def level_sets(settings: Grid, study: Study) -> pd.DataFrame:  # noqa: ARG001 - nothing is trained
    """Bounds on the plane, and the losses of the first class for the picture."""
    first, second = np.meshgrid(*[np.linspace(-EXTENT, EXTENT, SIDE)] * 2)
    plane = np.stack([first.ravel(), second.ravel()], axis=1) @ PLANE.T
    rows = [row for epsilon in EPSILONS for row in bounds(plane, np.zeros(len(plane), dtype=int), epsilon)]
    first, second = np.meshgrid(*[np.linspace(-EXTENT, EXTENT, settings.pictured)] * 2)
    logits = np.stack([first.ravel(), second.ravel()], axis=1) @ PLANE.T
    labels = np.zeros(len(logits), dtype=int)
    picture = pd.DataFrame({"statement": "picture", "x": first.ravel(), "y": second.ravel()})
    picture["maximum"] = losses(logits, labels, "maximum").round(4)
    for epsilon in EPSILONS:
        picture[f"smoothed {epsilon:g}"] = smoothed(logits, labels, epsilon).round(4)
    small = {name: "float32" for name in picture if name != "statement"}
    return pd.concat([pd.DataFrame(rows), picture.astype(small)], ignore_index=True)


def _bound_rules(frame: pd.DataFrame) -> list[Outcome]:
    found = frame[frame["statement"] != "picture"]

    def violation(statement: str, rule: str) -> Outcome:
        part = found[found["statement"] == statement]
        return exact(rule, float((part["left"] - part["right"]).max()), tolerance=1e-12, problems=len(part))

    return [
        violation("formula", "The package's loss is eps log sum_i exp(f_i / eps) - f_k (largest difference)"),
        violation("lower", "max f <= g_eps(f) (largest violation)"),
        violation("upper", "Corrected: g_eps(f) <= max f + eps log K (largest violation)"),
        violation("entropy", "At eps = 1 it is the cross-entropy of the softmax, eq. KL-SM (largest difference)"),
    ]


def level_set_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The bounds, attained where all logits are equal, the centre of the plane."""
    return [
        *_bound_rules(frame),
        equal(frame, "upper", "The upper bound eps log 3 is attained, where all logits are equal", tolerance=1e-9),
    ]


@dataclass(frozen=True)
class Random:
    """Random logits of section 7.3."""

    points: int


CLASSES = (2, 10, 1000)  # K
FINE = (1.0, 0.2, 0.05, 0.01)  # eps that tends to 0
UPPER = "Printed, below eq. 2.5: the max loss is an upper bound of the 0-1 loss (share of errors where it is not)"


def random_logits(settings: Random, study: Study) -> pd.DataFrame:  # noqa: ARG001
    """The bounds on random logits, and the losses beside the 0-1 loss where the class is wrong."""
    rows, random = [], np.random.default_rng(0)
    for classes in CLASSES:
        logits = random.normal(size=(settings.points, classes)) * 3
        labels = random.integers(classes, size=settings.points)
        rows += [row for epsilon in FINE for row in bounds(logits, labels, epsilon)]
        wrong = logits.argmax(1) != labels
        for loss in ("maximum", "hinge"):
            below_one = losses(logits, labels, loss)[wrong] < 1
            rows.append(side(loss, below_one.mean(), 0, classes=classes))
    return pd.DataFrame(rows)


def random_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The bounds, the limit of eps to 0, and the max loss beside the 0-1 loss."""
    shares = {name: frame.loc[frame["statement"] == name, "left"] for name in ("maximum", "hinge")}
    hinge = "The hinge loss, the max loss with a margin of 1, is an upper bound of the 0-1 loss"
    limit = frame[(frame["statement"] == "upper") & (frame["epsilon"] == min(FINE))]
    return [
        *_bound_rules(frame),
        below(limit, "upper", "g_eps tends to max: at eps = 0.01 it differs by at most 0.01 log K"),
        exact(UPPER, float(shares["maximum"].max()), tolerance=0, problems=len(CLASSES), beside=True),
        exact(hinge, float(shares["hinge"].max()), tolerance=0, problems=len(CLASSES), beside=True),
    ]


REPRODUCTIONS = (
    Reproduction(
        id="O20-F3",
        source="Oberman (2020), Fig. 3",
        claim="Level sets of the max loss and of the LSE losses with eps = 0.2 and 1, with the classification "
        "boundary: "
        "the smoothed losses lie between max and max + eps log K, and eps = 1 is the cross-entropy.",
        published=(
            {"quantity": "eps of the second panel", "value": 0.2},
            {"quantity": "eps of the third", "value": 1.0},
        ),
        presets={"quick": Grid(31), "cpu": Grid(81), "paper": Grid(81)},
        at_scale=("quick", "cpu", "paper"),
        table=level_sets,
        rules=level_set_rules,
        differs="The source does not state its slice of the logits; ours is the plane on which three logits sum to 0.",
        cost="1 s",
    ),
    Reproduction(
        id="O20-7.3",
        source="Oberman (2020), section 7.3, eqs 7.1 and 7.2",
        claim="g_eps is a smooth approximation of max, with max <= g_eps <= max + eps log K; eps = 1 gives the "
        "cross-entropy of the softmax.",
        presets={"quick": Random(2000), "cpu": Random(20_000), "paper": Random(20_000)},
        at_scale=("quick", "cpu", "paper"),
        table=random_logits,
        rules=random_rules,
        reasons={
            UPPER: "The max loss of an error is the distance of the largest logit from the label's, which may be below "
            "1 and is 0 at ties. With a margin of 1 (the hinge loss, the rule below) the bound holds on the same "
            "logits."
        },
        differs="The printed line below eq. 7.2 has g_eps on both sides; the upper bound is max f + eps log K. Beside "
        "it stands the sentence below eq. 2.5 on the max loss.",
        cost="3 s",
    ),
)
