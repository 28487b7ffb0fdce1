"""A training step with each penalty against a plain one: batch 128, ten classes, forward, backward and update."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.data.inputs import channels_last
from flatprobe.training.objective import Objective
from flatprobe.training.optimizers import build_optimizer
from flatprobe.training.penalties import PENALTIES
from flatprobe.training.registry import build
from tests.benchmarks.harness import SHAPES, Row, data_for, interleaved, untrained

BATCH = 128
STEPS = {"MLP": 20, "CNN": 3, "ResNet": 1}
ROUNDS = {"MLP": 3, "CNN": 2, "ResNet": 2}
COPIES = 3  # of each network, one after the other: where a copy's weights happen to lie moves a step by a quarter
STRENGTH = 1e-3

# What the issue of the training core asked for at most, (MLP, CNN, ResNet); None where it asked for nothing.
ASKED: dict[str, tuple[float, float, float] | None] = {
    "per layer": (2.7, 2.7, 2.7),
    "Frobenius, one projection": (2.6, 3.0, 2.6),
    "Hessian-scaled, sampled": (2.6, 3.0, 2.6),
    "double backpropagation": (2.6, 3.0, 2.6),
    "Tikhonov by differences": (2.6, 3.0, 2.6),
    "Frobenius, exact": (11.0, 14.0, 16.0),
    "Hessian-scaled, exact": (11.0, 14.0, 16.0),
    "spectral norms": (1.35, 1.35, 1.35),
}
VARIANTS: dict[str, dict[str, object]] = {
    "per layer": {"name": "jacobian_per_layer"},
    "Frobenius, one projection": {"name": "jacobian_frobenius", "projections": 1},
    "Hessian-scaled, sampled": {"name": "hessian_scaled", "projections": 1},
    "double backpropagation": {"name": "double_backpropagation"},
    "Tikhonov by differences": {"name": "tikhonov_differences", "step": 0.1},
    "spectral norms": {"name": "spectral_norm"},
    "Frobenius, exact": {"name": "jacobian_frobenius"},
    "Hessian-scaled, exact": {"name": "hessian_scaled"},
    "Jacobian's spectral norm": {"name": "jacobian_spectral"},
    "R_T, Gaussian noise": {"name": "transformed", "transform": {"name": "gaussian_noise", "deviation": 0.1}},
    "R_T, FGSM": {"name": "transformed", "transform": {"name": "fgsm", "budget": 0.1}},
}


def plain(name: str, model: nn.Module, data: fp.LabelledData) -> Callable[[], None]:
    """The obvious loop, its inputs in the layout that is fastest (channels last), a copy made once."""
    inputs = channels_last(data.inputs) if isinstance(data.inputs, Tensor) else data.inputs
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(inputs), data.labels).backward()
        optimizer.step()

    return repeated(name, model, step)


def penalised(name: str, model: nn.Module, data: fp.LabelledData, asked: dict[str, object]) -> Callable[[], None]:
    """A step as `fp.train` takes it."""
    penalties = {"penalty": (STRENGTH, build("penalty", asked, PENALTIES))}
    network = fp.EmpiricalRisk(model.eval(), data).network
    terms = Objective(module=model, placed=network, loss="cross_entropy", penalties=penalties)
    optimizer = build_optimizer("sgd", model.parameters(), learning_rate=0.01)
    parameters = list(model.parameters())
    count = 0

    def step() -> None:
        nonlocal count
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(terms(data.inputs, data.labels, count)[0], inputs=parameters)
        optimizer.step()
        count += 1

    return repeated(name, model, step)


def repeated(name: str, model: nn.Module, step: Callable[[], None]) -> Callable[[], None]:
    model.train()

    def steps() -> None:
        for _ in range(STEPS[name]):
            step()

    return steps


def rows() -> Iterator[Row]:
    for name in SHAPES:
        start, data = untrained(name), data_for(name, BATCH)
        for copied in range(COPIES):
            works = {"plain": plain(name, copy.deepcopy(start), data)}
            for variant, asked in VARIANTS.items():
                works[variant] = penalised(name, copy.deepcopy(start), data, asked)
            for variant, number, seconds in interleaved(works, ROUNDS[name]):
                target = ASKED.get(variant)
                yield {
                    "network": name,
                    "variant": variant,
                    "round": copied * ROUNDS[name] + number,
                    "seconds": seconds / STEPS[name],
                    "asked": None if target is None else target[list(SHAPES).index(name)],
                }
