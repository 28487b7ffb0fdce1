"""Smoothed certificates against Cohen et al.'s structure, and Jacobian maxima against a loop over points.

Cohen, Rosenfeld and Kolter's reference implementation takes one sample at a time: batches of draws of fresh noise, one
Clopper-Pearson limit by statsmodels a sample (scipy's here, which is what statsmodels calls).
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import stats
from torch import nn

import flatprobe as fp
from flatprobe.network.network import Network
from tests.benchmarks.harness import SHAPES, Row, data_for, interleaved, untrained

SIGMA, ALPHA = 0.25, 0.001
# The probe's defaults on the MLP; fewer draws where a pass is dear, a multiple of the blocks that noise is drawn in.
DRAWS = {"MLP": 1000, "CNN": 384, "ResNet": 128}
SELECTION = {"MLP": 100, "CNN": 64, "ResNet": 64}
SAMPLES = {"MLP": 32, "CNN": 4, "ResNet": 2}
PAIRS = {"MLP": 16, "CNN": 6, "ResNet": 2}
POINTS = 17
ROUNDS = 3
COHEN_BATCH = 400  # the batch of the paper's published commands


def cohen(model: nn.Module, data: fp.LabelledData, draws: int, selection: int, batch: int) -> torch.Tensor:
    """Radii by the structure of the reference implementation's `Smooth.certify`, 0 where it abstains."""

    def counts(x: torch.Tensor, draws: int) -> np.ndarray:
        found = np.zeros(10, dtype=int)
        while draws > 0:
            this = min(batch, draws)
            draws -= this
            repeated = x.repeat((this, 1, 1, 1))
            answers = model(repeated + torch.randn_like(repeated) * SIGMA).argmax(1)
            found += np.bincount(answers.numpy(), minlength=10)
        return found

    radii = []
    with torch.no_grad():
        for x in data.inputs:
            top = counts(x, selection).argmax()
            k = counts(x, draws)[top]
            p = stats.beta.ppf(ALPHA, k, draws - k + 1) if k else 0.0
            radii.append(SIGMA * stats.norm.ppf(p) if p > 0.5 else 0.0)
    return torch.tensor(radii)


def certificates(name: str) -> dict[str, Callable[[], object]]:
    model, data = untrained(name), data_for(name, SAMPLES[name])
    draws, selection = DRAWS[name], SELECTION[name]
    network = Network(model)
    rows = [batch.inputs for batch in data.batches(1)]
    size = network.batch_size()
    repeated = network.laid_out(rows[0].repeat((size, 1, 1, 1)))

    def passes() -> None:
        with torch.no_grad():
            for _ in range(-(-len(data) * (draws + selection) // size)):
                network(repeated)

    return {
        "flatprobe": lambda: fp.smoothed_certificate(
            model, data, sigma=SIGMA, draws=draws, selection=selection, alpha=ALPHA
        ),
        "sample by sample, 400 draws a pass (Cohen et al.)": lambda: cohen(model, data, draws, selection, COHEN_BATCH),
        "sample by sample, draw by draw": lambda: cohen(model, data.head(1), draws, selection, 1),
        "as many bare forward passes": passes,
    }


def maxima(name: str) -> dict[str, Callable[[], object]]:
    model, data = untrained(name), data_for(name, 200)

    def probe() -> torch.Tensor:
        return fp.jacobian_maximum(
            model, data, along="segments", pairs=PAIRS[name], points=POINTS, refine=0, seed=1
        ).values

    ends = fp.jacobian_maximum(model, data, along="segments", pairs=PAIRS[name], points=2, refine=0, seed=1)

    def loop() -> torch.Tensor:
        largest = []
        for first, second in zip(ends.first.tolist(), ends.second.tolist(), strict=True):
            x, other = data.inputs[first], data.inputs[second]
            norms = []
            for t in np.linspace(0, 1, POINTS):
                point = torch.lerp(x, other, float(t))
                J = torch.autograd.functional.jacobian(lambda x: model(x[None])[0], point).flatten(1)
                norms.append(torch.linalg.matrix_norm(J, 2))
            largest.append(max(norms))
        return torch.stack(largest)

    error = ((probe() - loop()).abs() / probe()).median()
    assert error < 1e-5, (name, float(error))  # the same work
    return {"flatprobe": probe, "point by point": loop}


def rows() -> Iterator[Row]:
    for name in SHAPES:
        for probe, works in (("smoothed_certificate", certificates(name)), ("jacobian_maximum", maxima(name))):
            samples = SAMPLES[name] if probe == "smoothed_certificate" else PAIRS[name]
            for variant, number, seconds in interleaved(works, ROUNDS):
                # The loop over single draws is measured on one sample: it would take minutes on all.
                scale = samples if variant.endswith("draw by draw") else 1
                yield {
                    "network": f"{name}, {probe}",
                    "variant": variant,
                    "round": number,
                    "samples": samples,
                    "seconds": scale * seconds,
                }
