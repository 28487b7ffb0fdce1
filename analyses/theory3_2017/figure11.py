"""Poggio et al. (2017), Figs 11 and 12: training accuracy over the triangle of three minima."""

import numpy as np
import pandas as pd

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference
from analyses.study import Study
from analyses.theory3_2017 import family
from flatprobe.probes.interpolation import Interpolation

STEPS = 20  # intervals per side of the triangle; not stated
LEVELS = (0.9, 0.99)  # accuracies of a flat region; ours, since the source prints no number
DISTANCES = (0.1, 0.2, 0.3)  # 1 - max lambda: how far from the nearest minimum
# Seeds of the initial weights and of the order of the three minima; the source does not say what they share.
MINIMA = {"different": ((0, 0), (1, 1), (2, 2)), "same": ((0, 0), (0, 1), (0, 2))}
CELL = ["data", "samples", "minima", "stage", "scale", "labels", "draw"]
BESIDE = ("mean accuracy", f"share above {LEVELS[0]:g}", "loss barrier")  # figures where a cell is not judged
COORDINATES = ["lambda_1", "lambda_2", "lambda_3"]


def landscapes(networks: family.Family, study: Study) -> pd.DataFrame:
    """One row per landscape and point of the triangle: training loss and error."""
    joint = []
    for minima, seeds in MINIMA.items():
        triples = zip(*(networks.networks([pair]) for pair in seeds), strict=True)
        joint += [
            fp.Measurement(
                "interpolate", stage=s, arguments={"steps": STEPS}, name=f"{minima}, {s}", experiments=triple
            )
            for triple in triples
            for s in networks.stages
        ]
    found = study.sweep([], joint)
    parts = [family.cells(rows).assign(name=name) for name, rows in found.items()]
    frame = pd.concat(parts, ignore_index=True)
    frame[["minima", "stage"]] = frame["name"].str.split(", ", expand=True)
    return frame


def figures(points: pd.DataFrame) -> dict[str, float]:
    """The figures of one landscape: shares, accuracy by distance, and the largest barrier of the loss on an edge."""
    found = Interpolation.from_frame(points[[*COORDINATES, "loss", "error"]], {})
    profile = found.profile().set_index("distance")["accuracy"]
    coordinates, loss = points[COORDINATES].to_numpy(), points["loss"].to_numpy()
    corners = np.array([loss[coordinates[:, place] == 1][0] for place in range(3)])
    edges = (coordinates == 0).any(axis=1)
    return {
        "mean accuracy": float(found.accuracy.mean()),
        **{f"share above {level:g}": found.flat_share(level) for level in LEVELS},
        **{f"accuracy at distance {distance:g}": float(profile[distance]) for distance in DISTANCES},
        "loss barrier": float((loss - coordinates @ corners)[edges].max()),
    }


def table11(both: family.Both, study: Study) -> pd.DataFrame:
    """The landscapes of CIFAR-10, one row per point, and those of MNIST that are compared with them."""
    mnist = table12(both.mnist, study)
    mnist = mnist[(mnist["stage"] == family.INTERPOLATED) & (mnist["minima"] == "different")]
    return pd.concat([table12(both.cifar, study).assign(data="cifar"), mnist], ignore_index=True)


def table12(networks: family.Family, study: Study) -> pd.DataFrame:
    """The landscapes of MNIST, one row per point."""
    return landscapes(networks, study).assign(data="mnist")[[*CELL, *COORDINATES, "loss", "error"]]


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per landscape: its figures."""
    return pd.DataFrame([dict(zip(CELL, cell, strict=True)) | figures(points) for cell, points in frame.groupby(CELL)])


def rules(frame: pd.DataFrame, data: str) -> list[Outcome]:
    """Flatter for natural labels: by shares of the triangle, and by accuracy near the minima."""
    found, table = [], measured(frame)
    for (minima, stage, scale), part in table[table["data"] == data].groupby(["minima", "stage", "scale"]):
        beside = (minima, stage, scale) != ("different", family.INTERPOLATED, 1)
        at = f"x{scale}, {minima} initial weights" + ("" if stage == family.INTERPOLATED else f", {stage}")
        for value in [name for name in table.columns if name not in CELL and (not beside or name in BESIDE)]:
            natural, random = family.pairs(part, value)
            if value == "loss barrier":
                rule = f"{value}, random - natural labels: {at}"
                found.append(difference(rule, random - natural, unit="nats", beside=True))
            else:
                rule = f"{value}, natural - random labels: {at}"
                found.append(difference(rule, natural - random, beside=beside or value == f"share above {LEVELS[1]:g}"))
    return found


def rules11(frame: pd.DataFrame) -> list[Outcome]:
    """The rules on CIFAR-10, and a larger difference of the labels on MNIST."""
    table = measured(frame)
    chosen = {"minima": "different", "stage": family.INTERPOLATED}
    found = rules(frame, "cifar")
    for scale in family.SCALES:
        for value in ("mean accuracy", f"share above {LEVELS[0]:g}"):
            gaps = {}
            for data in family.NAMES:
                natural, random = family.pairs(table, value, data=data, scale=scale, **chosen)
                gaps[data] = natural - random
            rule = f"{value}, natural - random labels, MNIST - CIFAR-10: x{scale}"
            outcome = difference(rule, gaps["mnist"] - gaps["cifar"], beside=scale != 1)
            found.append(family.across(outcome, table))
    return found


OPEN = (
    f"{family.CUT} Grid, n, and whether the three minima share their initial weights are not stated. Judged are "
    "initial weights x1, minima of different initial weights and the first 100 % epoch; x10, minima of the same "
    "initial weights with other orders, and further training to equal loss stand beside."
)
FIGURE11 = Reproduction(
    id="T3-F11",
    source="Poggio et al. (2017), Fig. 11",
    claim="On CIFAR-10, the training accuracy has a larger flat region around each of three minima for natural labels "
    "than for random ones.",
    presets=family.BOTH,
    table=table11,
    rules=rules11,
    differs=f"{OPEN} {family.JPEG}",
    cost="6 min, beside the networks of T3-F12",
)
FIGURE12 = Reproduction(
    id="T3-F12",
    source="Poggio et al. (2017), Fig. 12",
    claim="On MNIST the difference is amplified: big flat regions for natural labels, sharp wells for random ones.",
    presets=family.MNIST,
    table=table12,
    rules=lambda frame: rules(frame, "mnist"),
    differs=f"{OPEN} That the difference is amplified against CIFAR-10 is looked at in T3-F11.",
    cost="5 min",
)
REPRODUCTIONS = (FIGURE11, FIGURE12)
