"""Convolutions to measure, and their matrices built the obvious way: torch's layer on one unit vector after another."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from flatprobe.graph.operators import Convolution
from flatprobe.utils import rng

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def convolution(
    channels: tuple[int, int],
    kernel: tuple[int, ...],
    size: tuple[int, ...],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    seed: int = 0,
) -> Convolution:
    """A convolution (out, in) of standard normal weights, the same along every axis."""
    out, inputs = channels
    weight = rng.normal((out, inputs // groups, *kernel), seed, "convolution")
    axes = len(size)
    return Convolution(weight, size, (stride,) * axes, (padding,) * axes, (dilation,) * axes, groups)


def random_convolution(seed: int) -> Convolution:
    """1-D, 2-D or 3-D with random stride, padding, dilation and groups, of at most some hundred inputs and outputs."""
    generator = rng.generator(seed, "random convolution")

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    axes = 1 + seed % 3
    longest, taps = {1: (40, 6), 2: (13, 4), 3: (6, 3)}[axes]
    groups, inputs, outputs = draw(1, 3), draw(1, 3), draw(1, 3)
    kernel = tuple(draw(1, taps) for _ in range(axes))
    stride, padding, dilation = (tuple(draw(low, 3) for _ in range(axes)) for low in (1, 0, 1))
    needed = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    size = tuple(draw(least, max(longest, least)) for least in needed)
    weight = torch.randn((groups * outputs, inputs, *kernel), generator=generator)
    return Convolution(weight, size, stride, padding, dilation, groups)


def columns(op: Convolution) -> Tensor:
    """The matrix, column by column, with torch's own convolution called on the layer's arguments."""
    inputs = op.weight.shape[1] * op.groups
    count = inputs * math.prod(op.input_size)
    result = []
    for j in range(count):
        unit = torch.zeros(count, dtype=torch.float64)
        unit[j] = 1.0
        x = unit.view(1, inputs, *op.input_size)
        y = CONVOLVE[len(op.input_size)](x, op.weight.double(), None, op.stride, op.padding, op.dilation, op.groups)
        result.append(y.flatten())
    return torch.stack(result, 1)


def svd_norm(matrix: Tensor) -> float:
    """The largest singular value, by LAPACK."""
    return float(torch.linalg.svdvals(matrix)[0])


def is_wide(op: Convolution) -> bool:
    """At least 6 (kernel - 1) wide along every axis, dilation counted."""
    return all(n >= 6 * reach for n, reach in zip(op.input_size, op.reach, strict=True))
