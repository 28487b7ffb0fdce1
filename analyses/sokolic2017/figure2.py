"""Sokolic et al. (2017), Fig. 2: decision regions of a two-layer network in its input space and in its output space."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference
from analyses.study import Study

HIDDEN = 16  # units; the source gives neither data nor widths
NOISE = 0.15  # standard deviation of the points around two half circles of radius 1
TOTAL = 1000  # points of each split, of which the training samples are drawn
EPOCHS = 300
LEARNING_RATE = 0.1
STEPS = 151  # of the grid per axis
CORNERS = ((-2.0, -1.5), (3.0, 2.0))  # of the grid
DRAWN = 0  # the draw whose regions are kept, for the figure


@dataclass(frozen=True)
class Settings:
    """Training samples, and draws of samples and initial weights."""

    samples: int
    draws: int


def moons(*, split: str, noise: float, total: int) -> fp.LabelledData:
    """Two classes on interleaved half circles."""
    generator = torch.Generator().manual_seed(("train", "test").index(split))
    labels = torch.arange(total) % 2
    angle = math.pi * torch.rand(total, generator=generator)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    places = torch.where(labels[:, None] == 0, upper, torch.tensor([1.0, 0.5]) - upper)
    return fp.LabelledData(places + noise * torch.randn(total, 2, generator=generator), labels)


def spaces(model: nn.Module, data: fp.LabelledData) -> pd.DataFrame:
    """Points of the grid and training samples: place, logits, distances to the boundary in both spaces."""
    regions = fp.decision_regions(model, torch.tensor(CORNERS), extent=0, steps=STEPS)
    grid = pd.DataFrame({"kind": "grid", "x_1": regions.a, "x_2": regions.b, "label": regions.classes})
    with torch.no_grad():
        logits = model(data.inputs)
    signed = (logits[:, 0] - logits[:, 1]) * (1 - 2 * data.labels)
    points = torch.stack([regions.a, regions.b], 1)
    away = torch.cdist(data.inputs.double(), points)
    # The distance to the nearest point of the other class on the grid.
    inner = away.masked_fill(regions.classes[None] == data.labels[:, None], math.inf).min(1).values
    samples = {
        "kind": "sample",
        **{f"x_{k + 1}": data.inputs[:, k] for k in range(2)},
        **{f"z_{k + 1}": logits[:, k] for k in range(2)},
        "label": data.labels,
        "output distance": signed / 2**0.5,  # to the line z_1 = z_2
        "input distance": inner,
    }
    return pd.concat([pd.DataFrame(samples), grid])


def table(settings: Settings, study: Study) -> pd.DataFrame:
    """The samples of every draw, and the grid of the first."""
    base = fp.Experiment(
        network={"name": "mlp", "widths": [HIDDEN]},
        data={"name": f"{__name__}:moons", "noise": NOISE, "total": TOTAL, "samples": settings.samples},
        stages=[{"epochs": EPOCHS, "learning_rate": LEARNING_RATE, "batch_size": settings.samples}],
    )
    networks = base.vary({("seeds.data", "seeds.network"): [(draw, draw) for draw in range(settings.draws)]})
    rows = study.sweep(networks, [fp.Measurement(spaces)])["spaces"].rename(columns={"seeds.data": "draw"})
    kept = rows[(rows["kind"] == "sample") | (rows["draw"] == DRAWN)]
    measured = ["x_1", "x_2", "z_1", "z_2", "label", "output distance", "input distance"]
    return kept[["draw", "kind", *measured]].astype(dict.fromkeys(measured, "float32")).reset_index(drop=True)


def discordant(part: pd.DataFrame) -> float:
    """Share of the pairs of samples of which one is farther from the boundary in one space, the other in the other."""
    inner, outer = (np.sign(np.subtract.outer(part[name].to_numpy(), part[name].to_numpy())) for name in SPACES)
    pairs = inner * outer != 0
    return float((inner * outer < 0).sum() / pairs.sum())


SPACES = ("input distance", "output distance")


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """A large distance at the output need not be a large one at the input."""
    samples = frame[(frame["kind"] == "sample") & (frame["output distance"] > 0)]
    draws = [part for _, part in samples.groupby("draw")]
    far = [part[part[SPACES[1]] > part[SPACES[1]].median()][SPACES[0]] < part[SPACES[0]].median() for part in draws]
    return [
        difference(
            "pairs of samples whose order of distances differs between the spaces", list(map(discordant, draws)),
            unit="share",
        ),
        difference(
            "samples of the farther half at the output that belong to the nearer half at the input",
            [part.mean() for part in far], unit="share", beside=True,
        ),
    ]  # fmt: skip


REPRODUCTION = Reproduction(
    id="S17-F2",
    source="Sokolic et al. (2017), Fig. 2",
    claim="Training moves the boundary at the network's output away from the samples, which does not necessarily imply "
    "a large classification margin in the input space.",
    presets={"quick": Settings(40, 2), "cpu": Settings(100, 10)},
    table=table,
    rules=rules,
    differs="The source gives neither data nor network: here two half circles with noise, and 16 hidden units. The "
    "output space is that of the two logits, since softmax outputs lie on a line. Distances in the input space are "
    "those to the nearest point of the other class on a grid of 151 x 151.",
    cost="10 s",
)
