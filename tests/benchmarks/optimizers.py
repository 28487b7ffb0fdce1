"""A training step under each optimizer against plain SGD: what SGDL's indexed noise costs beside unindexed noise."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from flatprobe.training.optimizers import build_optimizer
from flatprobe.utils.arguments import Named
from tests.benchmarks.harness import SHAPES, Row, data_for, interleaved, untrained

BATCH = 128
STEPS = {"MLP": 20, "CNN": 4, "ResNet": 2}
ROUNDS = 5
NOISE = 0.001
OPTIMIZERS: dict[str, Named] = {
    "sgd": "sgd",
    "nesterov": "nesterov",
    "adam": "adam",
    "sgdl": {"name": "sgdl", "noise": NOISE},
}


class UnindexedNoise(SGD):
    """The obvious SGDL: noise from the global generator after each step, which no resumed run repeats."""

    @torch.no_grad()
    def step(self) -> None:
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=NOISE)


def steps(name: str, model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    data = data_for(name, BATCH)
    model.train()

    def run() -> None:
        for _ in range(STEPS[name]):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(data.inputs), data.labels).backward()
            optimizer.step()

    return run


def variants(name: str) -> dict[str, Callable[[], None]]:
    works, start = {}, untrained(name)
    for variant, optimizer in OPTIMIZERS.items():
        model = copy.deepcopy(start)
        works[variant] = steps(name, model, build_optimizer(optimizer, model.parameters(), learning_rate=0.01))
    model = copy.deepcopy(start)
    works["sgdl, unindexed"] = steps(name, model, UnindexedNoise(model.parameters(), lr=0.01, momentum=0.9))
    return works


def rows() -> Iterator[Row]:
    for name in SHAPES:
        for variant, number, seconds in interleaved(variants(name), ROUNDS):
            yield {"network": name, "variant": variant, "round": number, "seconds": seconds / STEPS[name]}
