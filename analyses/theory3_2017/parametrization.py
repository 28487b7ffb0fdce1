"""Poggio et al. (2017), section 1.1: isotropic flat minima and equivalent weights of the same function."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from torch import nn

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact
from analyses.study import Study
from analyses.theory3_2017.family import CIFAR, INTERPOLATED, MNIST, Family

CLAIM = "the isotropic radius stays under a rescaling that keeps the function (largest relative change)"
ADAPTIVE = "the adaptive radius, whose directions follow the weights, stays (largest relative change)"


@dataclass(frozen=True)
class Settings:
    """The family, and factors of every second hidden unit; powers of two do not round."""

    family: Family
    factors: tuple[float, ...]


def measure(model: nn.Module, data: fp.LabelledData, *, factors: Sequence[float]) -> pd.DataFrame:
    """Both radii before and after every second hidden unit is rescaled by each factor."""
    parts = []
    for factor in factors:
        found = fp.audit(
            model, data, probes=["flatness_radius", "flatness_radius_adaptive"], changes=["rescaling"], factor=factor
        )
        parts.append(found.to_frame().assign(factor=factor, deviation=found.applied["rescaling"]["deviation"]))
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["figure"] == "mean"].drop(columns="spread")


def table(settings: Settings, study: Study) -> pd.DataFrame:
    """Radii of the family's networks with natural labels and initial weights x1, by draw and factor."""
    measurement = fp.Measurement(
        f"{__name__}:measure", on="train", stage=INTERPOLATED, name="radii", arguments={"factors": settings.factors}
    )
    return study.sweep(natural(settings.family), [measurement])["radii"]


def natural(family: Family) -> list[fp.Experiment]:
    """The networks with natural labels and initial weights x1."""
    return [one for one in family.networks() if one.data["random_labels"] == 0 and one.network["scale"] == 1]


def rules(frame: pd.DataFrame) -> Sequence[Outcome]:
    """The change of the two radii, at any factor."""
    change = frame["relative_change"].abs()
    isotropic = frame["probe"] == "flatness_radius"
    count = frame["seeds.data"].nunique()
    return [
        exact(CLAIM, float(change[isotropic].max()), tolerance=0.01, problems=count),
        exact(ADAPTIVE, float(change[~isotropic].max()), tolerance=0.01, problems=count, beside=True),
        exact("the rescaled network computes the same function (largest relative difference of logits)",
              float(frame["deviation"].max()), tolerance=1e-3, problems=count, beside=True),
    ]  # fmt: skip


REPRODUCTION = Reproduction(
    id="T3-1.1",
    source="Poggio et al. (2017), section 1.1",
    claim="Isotropic flat minima in the loss with respect to all weights cannot be transformed into sharp minima, "
    "against Dinh et al. (2017).",
    presets={
        "quick": Settings(MNIST["quick"], factors=(1024.0,)),
        "cpu": Settings(MNIST["cpu"], factors=(4.0, 1024.0)),
        "paper": Settings(CIFAR["paper"], factors=(4.0, 32.0, 1024.0)),
    },
    table=table,
    rules=rules,
    reasons={
        CLAIM: "A ReLU unit's incoming weights times a and outgoing weights divided by a compute the same function, so "
        "that a minimum that is flat in all directions becomes sharp in some. The cause is tested by the adaptive law "
        "(beside): directions that are scaled with the weights give the same radius before and after."
    },
    differs="One hidden layer of 512 units on 1,000 samples of MNIST; the radius is that of section 7, at a loss "
    "increase of 0.05, along 10 directions.",
    cost="1 min",
)  # fmt: skip
