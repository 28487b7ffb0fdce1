"""The trainings that are killed and resumed: what a run folder must bring back, in combinations."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import flatprobe as fp
from flatprobe.utils.arguments import Named
from flatprobe.utils.rng import generator, permutation
from flatprobe.utils.seeding import seeded

SAMPLES, FEATURES, CLASSES = 64, 4, 3
WIDTH = 2048  # hidden units: files of some 100 kB, so that some kills fall into a write

OPTIMIZERS: list[Named] = ["sgd", "nesterov", "adam", {"name": "sgdl", "noise": 0.01}]
SCHEDULES: list[Named | None] = [
    None,
    "cosine",
    {"name": "step", "stages": [(1, 3), (0.1, 5)]},
    {"name": "inverse", "decay": 0.1},
]
# Penalties that are drawn anew in each step, a penalty and a constraint that remember vectors, a transform that draws.
SAMPLED = [(0.01, {"name": "jacobian_frobenius", "projections": 1})]
REMEMBERED = [(0.01, "spectral_norm")]
NOISE = [{"name": "gaussian_noise", "deviation": 0.1}]
HELD = [{"name": "spectral_projection", "bound": 2.0}]
PARTS: list[dict[str, Any]] = [
    {},
    {"penalties": SAMPLED},
    {"penalties": REMEMBERED},
    {"transforms": NOISE},
    {"constraints": HELD},
    {"penalties": [*SAMPLED, *REMEMBERED], "transforms": NOISE, "constraints": HELD},
]


@dataclass(frozen=True)
class Case:
    """What is trained: one combination of what a run folder must bring back."""

    optimizer: Named
    schedule: Named | None
    parts: Mapping[str, Any]
    validation: bool
    dropout: bool
    epochs: int
    seed: int

    def train(self, out: Path) -> None:
        network = fp.models.mlp((FEATURES,), widths=(WIDTH,), classes=CLASSES)
        if self.dropout:
            with seeded(self.seed, "initial weights"):
                network = nn.Sequential(
                    nn.Linear(FEATURES, WIDTH),
                    nn.BatchNorm1d(WIDTH),
                    nn.ReLU(),
                    nn.Dropout(0.3),
                    nn.Linear(WIDTH, CLASSES),
                )
        fp.train(
            network,
            samples("training"),
            validation=samples("validation").with_random_labels(0.3) if self.validation else None,
            epochs=self.epochs,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch_size=32,
            seed=self.seed,
            threads=1,
            out=out,
            save_every=0,
            **self.parts,
        )

    def described(self) -> dict[str, Any]:
        """Columns of the record."""
        return {
            "optimizer": _name(self.optimizer),
            "schedule": None if self.schedule is None else _name(self.schedule),
            "penalties": [_name(penalty) for _, penalty in self.parts.get("penalties", [])],
            "transforms": [_name(transform) for transform in self.parts.get("transforms", [])],
            "constraints": [_name(constraint) for constraint in self.parts.get("constraints", [])],
            "validation": self.validation,
            "dropout": self.dropout,
            "epochs": self.epochs,
        }


def samples(key: str) -> fp.LabelledData:
    labels = torch.arange(SAMPLES) % CLASSES
    inputs = torch.rand(SAMPLES, FEATURES, generator=generator("interruptions", key))
    inputs[torch.arange(SAMPLES), labels] += 0.5
    return fp.LabelledData(inputs, labels, classes=CLASSES)


def cases(count: int, epochs: int, seed: int) -> list[Case]:
    """All combinations in a random order, over and over."""
    every = list(itertools.product(OPTIMIZERS, SCHEDULES, PARTS, (False, True), (False, True)))
    order = permutation(len(every), seed, "cases").tolist()
    return [Case(*every[order[run % len(every)]], epochs, seed + run) for run in range(count)]


def _name(asked: Named) -> str:
    return asked if isinstance(asked, str) else str(asked["name"])
