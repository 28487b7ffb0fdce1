"""Adversarial accuracy over a grid of budgets, against the same attack anew on all samples at each budget."""

from collections.abc import Callable, Iterator

import torch

import flatprobe as fp
from flatprobe.attacks import pgd
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network
from tests.benchmarks.harness import Row, data_for, interleaved, trained

BUDGETS = (0.5, 1.0, 2.0, 3.0)
STEPS = 20
ROUNDS = 3
SAMPLES = {"MLP": 256, "CNN": 64}


def variants(name: str) -> dict[str, Callable[[], object]]:
    model, _ = trained(name)
    data = data_for(name, SAMPLES[name])
    network = Network(model)
    inputs = network.prepare(data.inputs)
    assert isinstance(inputs, torch.Tensor)
    inspect_network(network, inputs)

    def anew() -> list[float]:
        accuracies = []
        for budget in BUDGETS:
            right = []
            for own, labels in zip(inputs.split(size), data.labels.split(size), strict=True):
                sizes = torch.full((len(own),), budget)
                noise = torch.randn_like(own)
                points, _ = pgd(network, own, labels, sizes, norm="l2", box=None, steps=STEPS, noise=noise)
                with torch.no_grad():
                    right.append(network(points).argmax(1) == labels)
            accuracies.append(float(torch.cat(right).double().mean()))
        return accuracies

    size = network.batch_size(None)
    return {
        "flatprobe": lambda: fp.adversarial_accuracy(model, data, budgets=BUDGETS, steps=STEPS),
        "each budget anew": anew,
    }


def rows() -> Iterator[Row]:
    for name, samples in SAMPLES.items():
        for variant, number, seconds in interleaved(variants(name), ROUNDS):
            yield {"network": name, "variant": variant, "round": number, "samples": samples, "seconds": seconds}
