"""Jacobian spectral norms against a loop over samples, vmap(jacrev) with an SVD, and bare backward passes.

`python -m tests.benchmarks.jacobian NETWORK CLASSES VARIANT` measures one variant's peak memory.
"""

import sys
from collections.abc import Callable, Iterator

import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.copies import structural_copy
from flatprobe.network.network import Network
from tests.benchmarks.harness import SHAPES, Row, data_for, interleaved, peak_mebibytes, report_peak, untrained

# Fewer samples for more classes: the loop takes samples x classes passes, and vmap holds as many sets of activations.
SAMPLES = {
    "MLP": {10: 1024, 20: 512, 40: 256, 100: 64, 1000: 8},
    "CNN": {10: 256, 20: 128, 40: 64, 100: 32, 1000: 4},
    "ResNet": {10: 64, 20: 16, 40: 16, 100: 8, 1000: 1},
}
ROUNDS = {10: 5, 20: 3, 40: 3, 100: 3, 1000: 1}
MEMORY = ("flatprobe", "vmap(jacrev) + SVD")


def variants(name: str, classes: int, samples: int) -> dict[str, Callable[[], object]]:
    model = untrained(name, classes)
    data = fp.LabelledData(data_for(name, samples).inputs, torch.zeros(samples, dtype=torch.long), classes=classes)
    inputs = data.inputs
    assert isinstance(inputs, torch.Tensor)
    size = Network(model).batch_size()

    frozen = structural_copy(model).requires_grad_(requires_grad=False)  # else the peer records a graph in the weights

    def one(x: torch.Tensor) -> torch.Tensor:
        return frozen(x[None])[0]

    def loop() -> torch.Tensor:
        matrices = [torch.autograd.functional.jacobian(one, x).flatten(1) for x in inputs]
        return torch.stack([torch.linalg.svdvals(J)[0] for J in matrices])

    def vmapped() -> torch.Tensor:  # in batches as large as the probe's
        matrices = [torch.func.vmap(torch.func.jacrev(one))(part).flatten(2) for part in inputs.split(size)]
        return torch.cat([torch.linalg.svdvals(J)[:, 0] for J in matrices])

    def probe(method: str | None = None) -> torch.Tensor:
        return fp.jacobian_norms(model, data, method=method).values

    return {
        "flatprobe": probe,
        "gram": lambda: probe("gram"),
        "lanczos": lambda: probe("lanczos"),
        "loop over samples": loop,
        "vmap(jacrev) + SVD": vmapped,
        "bare backward passes": lambda: _backward(model, inputs, classes),
    }


def _backward(model: nn.Module, inputs: torch.Tensor, classes: int) -> None:
    """C plain backward passes in the layout that the probe uses."""
    network = Network(model)
    for part in inputs.split(network.batch_size()):
        variable = part.clone().requires_grad_()
        logits = network(variable)
        for k in range(classes):
            torch.autograd.grad(logits[:, k].sum(), variable, retain_graph=True)


def rows() -> Iterator[Row]:
    for name in SHAPES:
        for classes, samples in SAMPLES[name].items():
            works = variants(name, classes, samples)
            reference = works["loop over samples"]()
            for variant in ("gram", "lanczos"):  # the same work: a few samples at a ReLU's kink may differ in float32
                error = ((works[variant]() - reference).abs() / reference).median()
                assert error < 1e-5, (name, classes, variant, float(error))
            for variant, number, seconds in interleaved(works, ROUNDS[classes]):
                yield {
                    "network": name,
                    "classes": classes,
                    "variant": variant,
                    "round": number,
                    "samples": samples,
                    "seconds": seconds,
                }
            for variant in MEMORY if classes == 10 else ():
                yield {
                    "network": name,
                    "classes": classes,
                    "variant": variant,
                    "samples": samples,
                    "peak_mebibytes": peak_mebibytes("jacobian", name, str(classes), variant),
                }


if __name__ == "__main__":
    network, number, variant = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    variants(network, number, 2)[variant]()  # loads what torch loads late: megabytes of modules are no one's Jacobians
    report_peak(variants(network, number, SAMPLES[network][number])[variant])
