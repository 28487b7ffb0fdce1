"""Curvature: eigenvalues against power iteration, products and traces against gradients, slices against bare passes,
gradient noise against per-sample gradients.

`python -m tests.benchmarks.sharpness NETWORK VARIANT` measures one variant of the noise's peak memory.
"""

import sys
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import flatprobe as fp
from flatprobe.network.network import Network
from flatprobe.network.weights import Weights, combine, norm, select
from flatprobe.utils import rng
from tests.benchmarks.harness import (
    SHAPES,
    Row,
    bare_pass,
    data_for,
    interleaved,
    peak_mebibytes,
    report_peak,
    untrained,
)

SAMPLES = {"MLP": 1000, "CNN": 128, "ResNet": 64}
ROUNDS = {"MLP": 3, "CNN": 2, "ResNet": 1}
STEPS, DRAWS, MINIBATCH = 11, 10, 32
LIMIT = 40  # products of power iteration; where it has not arrived by then, that is its cost


class Products:
    """A risk that counts its Hessian products."""

    def __init__(self, name: str) -> None:
        self.model, self.data = trained(name)
        self.risk = fp.EmpiricalRisk(self.model, self.data)
        self.exact = float(fp.hessian_eigenvalues(self.risk, tolerance=1e-5).eigenvalues[0])
        self.counts: dict[str, int] = {}

    def lanczos(self) -> None:
        result = fp.hessian_eigenvalues(self.risk)
        assert abs(float(result.eigenvalues[0]) / self.exact - 1) < 1e-4
        self.counts["eigenvalue: flatprobe"] = result.products

    def power(self) -> None:
        """Power iteration to the accuracy that `lanczos` is held to."""
        v = {name: rng.normal(w.shape, 0, name) for name, w in self.risk.center.items()}
        for count in range(1, LIMIT + 1):
            self.counts["eigenvalue: power iteration"] = count
            v = combine([v], [1 / norm(v)])
            product = self.risk.hvp(None, v)
            value = sum(float((v[name] * product[name]).sum()) for name in v)
            v = product
            if abs(value / self.exact - 1) < 1e-4:
                break


def trained(name: str) -> tuple[nn.Module, fp.LabelledData]:
    """A few epochs: away from the initial weights, not at a minimum."""
    data = data_for(name, SAMPLES[name])
    network = untrained(name)
    return fp.train(network, data, epochs=5, learning_rate=0.02, batch_size=32).model, data


def noise_variants(name: str) -> dict[str, Callable[[], object]]:
    model, data = untrained(name), data_for(name, SAMPLES[name])
    risk = fp.EmpiricalRisk(model, data)
    return {
        "noise: flatprobe": lambda: fp.gradient_noise(risk, batch_size=MINIBATCH, draws=DRAWS),
        "noise: vmap per sample": lambda: per_sample(model, data),
    }


def per_sample(model: nn.Module, data: fp.LabelledData) -> float:
    """tr Sigma from the gradients of as many samples as the draws hold, in minibatches."""
    weights = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(w: Weights, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(model, {**w, **buffers}, x[None]), y[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    total = 0.0
    for draw in range(DRAWS):
        inputs, labels = data.gather(rng.permutation(len(data), 0, "minibatch", draw)[:MINIBATCH])
        total += sum(float(g.double().square().sum()) for g in each(weights, inputs, labels).values())
    return total / (DRAWS * MINIBATCH)


def variants(name: str) -> dict[str, Callable[[], object]]:
    model, data = untrained(name), data_for(name, SAMPLES[name])
    risk = fp.EmpiricalRisk(model, data)
    direction = {key: rng.normal(w.shape, 1, key) for key, w in risk.center.items()}
    bare = bare_pass(model, data)
    last = select(risk.center, "last")

    def forward_over_reverse() -> None:
        network = Network(model)
        for batch in data.batches(network.batch_size()):
            x, y = network.prepare(batch.inputs), batch.labels

            def loss(w: Weights, x: object = x, y: torch.Tensor = y) -> torch.Tensor:
                return nn.functional.cross_entropy(network(x, w), y, reduction="sum")

            torch.func.jvp(grad(loss), (network.weights,), (direction,))

    return {
        "two gradients": lambda: [risk.gradient(), risk.gradient()],
        "product: flatprobe": lambda: risk.hvp(None, direction),
        "product: forward over reverse": forward_over_reverse,
        "product: last layer": lambda: risk.hvp(None, direction, last),
        "trace, 10 draws: flatprobe": lambda: fp.hessian_trace(risk, draws=10),
        "trace, 10 draws: a product each": lambda: [risk.hvp(None, direction) for _ in range(10)],
        "slice, 11 points: flatprobe": lambda: fp.random_slice(risk, dimensions=1, steps=STEPS),
        "slice, 11 points: bare passes": lambda: [bare() for _ in range(STEPS)],
        **noise_variants(name),
    }


def rows() -> Iterator[Row]:
    for name in SHAPES:
        samples, rounds = SAMPLES[name], ROUNDS[name]
        for variant, number, seconds in interleaved(variants(name), rounds):
            yield {"network": name, "variant": variant, "round": number, "samples": samples, "seconds": seconds}
        if name != "ResNet":
            contest = Products(name)
            works = {
                "eigenvalue: flatprobe": contest.lanczos,
                "eigenvalue: power iteration": contest.power,
            }
            for variant, number, seconds in interleaved(works, 1):
                row = {"network": name, "variant": variant, "round": number, "samples": samples, "seconds": seconds}
                yield {**row, "products": contest.counts[variant]}
        for variant in noise_variants(name):
            peak = peak_mebibytes("sharpness", name, variant)
            yield {"network": name, "variant": variant, "samples": samples, "peak_mebibytes": peak}


if __name__ == "__main__":
    report_peak(noise_variants(sys.argv[1])[sys.argv[2]])
