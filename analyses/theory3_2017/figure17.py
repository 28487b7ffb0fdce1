"""Poggio et al. (2017), Fig. 17: functional margins and l2 norms on CIFAR-10, for initial weights x1 and x10."""

import pandas as pd

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import ratio
from analyses.study import Study
from analyses.theory3_2017 import family

STAGES = (family.INTERPOLATED, family.EQUAL_LOSS)
TESTED = 2000  # first test samples, for the accuracy beside
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the margins of the training samples
CELL = ["data", "labels", "scale", "draw", "stage"]
NORMALISED = "median margin over product of spectral norms"  # beside the claim: the source names no division


def table(both: family.Both, study: Study) -> pd.DataFrame:
    """One row per network and stage: norms, quantiles of the margins, training loss, test accuracy."""
    found = both.sweep(
        study,
        [fp.Measurement("weight_norms", stage=stage, name=f"norms, {stage}") for stage in STAGES]
        + [fp.Measurement("functional_margins", stage=stage, name=f"margins, {stage}") for stage in STAGES]
        + [fp.Measurement("risk", stage=stage, name=f"train, {stage}") for stage in STAGES]
        + [fp.Measurement("risk", on="test", samples=TESTED, stage=stage, name=f"test, {stage}") for stage in STAGES],
    )
    norms, margins, train, test = (
        pd.concat([found[f"{name}, {stage}"] for stage in STAGES]) for name in ("norms", "margins", "train", "test")
    )
    values = margins.groupby(CELL)["value"]
    figures = {f"margin {q:g}": values.quantile(q) for q in QUANTILES} | {
        "l2": norms[norms["quantity"] == "l2"].groupby(CELL)["value"].first(),
        "product": norms[norms["quantity"] == "spectral"].groupby(CELL)["value"].prod(),
        "train loss": train.groupby(CELL)["loss"].first(),
        "test accuracy": 1 - test.groupby(CELL)["error"].first(),
    }
    return pd.DataFrame(figures).reset_index()


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """The four orders of norms and margins, and those of margins over the product of norms."""
    frame = frame.rename(columns={"l2": "l2 norm", "margin 0.5": "median margin"})
    frame[NORMALISED] = frame["median margin"] / frame["product"]
    found = []
    for (data, stage), part in frame.groupby(["data", "stage"]):
        for value in ("l2 norm", "median margin", NORMALISED):
            beside = data != "cifar" or stage != family.INTERPOLATED or value == NORMALISED
            at = "" if (data, stage) == ("cifar", family.INTERPOLATED) else f" ({family.NAMES[data]}, {stage})"
            wide = part.pivot_table(index="draw", columns=["labels", "scale"], values=value)
            large = value == "l2 norm"
            for scale in family.SCALES:
                over, under = ("random", "natural") if large else ("natural", "random")
                rule = f"{value}: {over} over {under} labels, x{scale}{at}"
                found.append(ratio(rule, wide[over, scale], wide[under, scale], beside=beside))
            for labels in family.LABELS:
                over, under = (10, 1) if large else (1, 10)
                rule = f"{value}: x{over} over x{under}, {labels} labels{at}"
                found.append(ratio(rule, wide[labels, over], wide[labels, under], beside=beside))
    return found


REPRODUCTION = Reproduction(
    id="T3-F17",
    source="Poggio et al. (2017), Fig. 17",
    claim=(
        "Random labels have smaller functional margins and a larger l2 norm than natural labels; initial weights x10 "
        "have smaller margins and a larger l2 norm than x1."
    ),
    presets=family.BOTH,
    table=table,
    rules=rules,
    differs=(
        f"{family.CUT} {family.JPEG} The caption compares random with random labels, which we read as natural. "
        "Which margin and which norm are drawn is not stated: the median over the training samples, raw and divided "
        "by the product of the layers' spectral norms, and the norm of all weights."
    ),
    cost="4 min, of which all but seconds for networks that other items share",
)
