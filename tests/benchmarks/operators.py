"""Norms of convolutions: the certified bound and the estimate against the SVD of the dense matrix and the plain torus.

`python -m tests.benchmarks.operators LAYER VARIANT` measures one variant's peak memory.
"""

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch

from flatprobe.graph import operators
from flatprobe.graph.operators import Convolution
from flatprobe.utils import rng
from tests.benchmarks.harness import Row, interleaved, peak_mebibytes, report_peak

# (out, in, kernel, input size, stride, padding), all 2-D and square.
LAYERS = {
    "16 -> 16, 3x3 on 8x8": (16, 16, 3, 8, 1, 1),
    "8 -> 8, 3x3 on 12x12": (8, 8, 3, 12, 1, 1),
    "3 -> 16, 5x5 on 20x20, stride 2": (16, 3, 5, 20, 2, 2),
    "128 -> 128, 3x3 on 16x16": (128, 128, 3, 16, 1, 1),
}
DENSE = 2000  # larger sides take minutes and gigabytes
ROUNDS = 2
MEMORY = "128 -> 128, 3x3 on 16x16"


def layer(name: str) -> Convolution:
    out, inputs, k, n, s, p = LAYERS[name]
    weight = rng.normal((out, inputs, k, k), "benchmark") / math.sqrt(inputs * k * k)
    return Convolution(weight, (n, n), (s, s), (p, p), (1, 1), 1)


def plain_torus(op: Convolution) -> float:
    """What a careful user writes: FFT of the padded kernel, a batched SVD of the symbols; stride 1's symbols only."""
    size = [n + reach for n, reach in zip(op.input_size, op.reach, strict=True)]
    symbols = torch.fft.fft2(op.kernel, s=size).permute(2, 3, 0, 1)
    return float(torch.linalg.svdvals(symbols).max())


def variants(name: str) -> dict[str, Callable[[], float]]:
    op = layer(name)
    works: dict[str, Callable[[], float]] = {
        "certified": lambda: operators.certified_spectral_norm(op),
        "estimate": lambda: operators.spectral_norm(op),
        "plain torus": lambda: plain_torus(op),
    }
    if min(op.block_shape) <= DENSE:
        works["dense SVD"] = lambda: float(torch.linalg.svdvals(op.dense())[0])
    return works


def rows() -> Iterator[Row]:
    for name in LAYERS:
        works = variants(name)
        norms: dict[str, float] = {}
        timed = {variant: partial(keep, norms, variant, work) for variant, work in works.items()}
        for variant, number, seconds in interleaved(timed, ROUNDS):
            excess = norms[variant] / norms["estimate"] - 1
            yield {"layer": name, "variant": variant, "round": number, "seconds": seconds, "excess": excess}
        assert 1 - 1e-9 < norms["certified"] / norms["estimate"] < 1.05, (name, norms)
        assert abs(norms.get("dense SVD", norms["estimate"]) / norms["estimate"] - 1) < 1e-6, (name, norms)
        for variant in works if name == MEMORY else ():
            yield {"layer": name, "variant": variant, "peak_mebibytes": peak_mebibytes("operators", name, variant)}


def keep(norms: dict[str, float], variant: str, work: Callable[[], float]) -> None:
    norms[variant] = work()


if __name__ == "__main__":
    report_peak(variants(sys.argv[1])[sys.argv[2]])
