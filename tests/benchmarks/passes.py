"""Landscape and Gaussian robustness, in units of as many bare forward passes; batch sizes for the fixed table."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

import flatprobe as fp
from flatprobe.network.network import Network
from tests.benchmarks.harness import SHAPES, Row, bare_pass, data_for, interleaved, untrained

STEPS = 4  # 15 points of the triangle
GAMMAS = (0.0, 0.1, 0.2, 0.4, 0.8)
DRAWS = 3  # 15 noisy passes
ROUNDS = 5
SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)


def _variants(name: str, data: fp.LabelledData) -> dict[str, Callable[[], object]]:
    models = [untrained(name) for _ in range(3)]
    risk = fp.EmpiricalRisk(models[0], data)
    policy = "interpolate" if risk.network.batch_normalised else None
    bare = bare_pass(models[0], data)
    points = fp.simplex(3, steps=STEPS)
    assert len(points) == len(GAMMAS) * DRAWS
    return {
        "landscape": lambda: fp.interpolate(risk, models, points, batch_norm=policy),
        "robustness": lambda: fp.gaussian_robustness(models[1], data, gammas=GAMMAS, draws=DRAWS),
        "bare forward passes": lambda: [bare() for _ in points],
    }


def rows() -> Iterator[Row]:
    for name in SHAPES:
        data = data_for(name)
        for variant, number, seconds in interleaved(_variants(name, data), ROUNDS):
            yield {"network": name, "variant": variant, "round": number, "samples": len(data), "seconds": seconds}


def _forward(network: Network, inputs: torch.Tensor, size: int) -> None:
    with torch.no_grad():
        for part in inputs.split(size):
            network(part)


def batch_size_rows() -> Iterator[Row]:
    for name in SHAPES:
        network = Network(untrained(name))
        inputs = network.prepare(data_for(name, 2048).inputs)
        assert isinstance(inputs, torch.Tensor)
        variants = {f"batch size {size}": partial(_forward, network, inputs, size) for size in SIZES}
        for variant, number, seconds in interleaved(variants, 2):
            yield {"network": name, "variant": variant, "round": number, "samples": len(inputs), "seconds": seconds}
