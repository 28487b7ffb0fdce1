"""Poggio et al. (2017), Fig. 16: l1 norms of the units' incoming weights on CIFAR-10."""

import pandas as pd

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import ratio
from analyses.study import Study
from analyses.theory3_2017 import family

STAGES = ("initial", family.INTERPOLATED, family.EQUAL_LOSS)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the units of a layer
CELL = ["data", "labels", "scale", "draw", "stage", "layer"]


def table(both: family.Both, study: Study) -> pd.DataFrame:
    """One row per network, stage and layer: mean and quantiles of the fan-in norms of its units."""
    found = both.sweep(study, [fp.Measurement("weight_norms", stage=stage, name=stage) for stage in STAGES])
    rows = pd.concat(found.values())
    units = rows[rows["quantity"] == "fan_in_l1"].groupby(CELL)["value"]
    figures = {f"{q:g}": units.quantile(q) for q in QUANTILES} | {"mean": units.mean()}
    return pd.DataFrame(figures).reset_index()


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """Per layer: larger for random labels, and growth over training."""
    found = []
    for (data, scale, layer), part in frame.groupby(["data", "scale", "layer"]):
        at = f"{family.NAMES[data]}, x{scale}, layer {layer}"
        start, end = (family.pairs(part, "mean", stage=stage) for stage in STAGES[:2])
        found += [
            ratio(f"random over natural labels: {at}", end[1], end[0], beside=(data, scale) != ("cifar", 1)),
            ratio(f"end over start of training, natural labels: {at}", end[0], start[0], beside=True),
            ratio(f"end over start of training, random labels: {at}", end[1], start[1], beside=True),
        ]
        if data == "mnist":
            natural, random = family.pairs(part, "mean", stage=family.EQUAL_LOSS)
            found.append(ratio(f"random over natural labels at equal loss: {at}", random, natural, beside=True))
    return found


REPRODUCTION = Reproduction(
    id="T3-F16",
    source="Poggio et al. (2017), Fig. 16",
    claim="Fan-in l1 norms of the weights for training on CIFAR-10; what is compared is not stated.",
    presets=family.BOTH,
    table=table,
    rules=rules,
    differs=(
        f"{family.CUT} {family.JPEG} The source says nothing about the figure but its title: our rule is that of "
        "Fig. 17, a larger norm for random labels."
    ),
    cost="4 min, of which all but seconds for networks that other items share",
)
