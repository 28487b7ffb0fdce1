"""The path norm of a network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flatprobe.graph import Graph, Step, fold


def path_norm(graph: Graph) -> float:
    """Path norm ||w_hat|| = sqrt(sum over paths of (product of its weights)^2).

    A path leads from an entry of the input, or from a bias, to a logit. One pass in float64 computes the norm: the root
    of the sum of the logits at squared weights and biases and an input of ones. In this pass:

    - BatchNorm and normalization are folded, and activations are the identity;
    - max pooling is the sum over its window, since any entry may pass, and so is the larger of two values;
    - average pooling is the sum over its window P, divided by |P|^2;
    - sums and concatenations of branches are unchanged.

    This norm is w_hat of the source, not w_tilde, which sums the paths of a weight before squaring.

    Args:
        graph: the graph of the network, from `flatprobe.graph.trace`.

    Raises:
        ValueError: for an operation whose paths are not known, naming the layer.

    Source: Poggio et al. (2017), eq. 34 [T3]; the pass at squared weights after Neyshabur, Salakhutdinov and Srebro
    (2015), "Path-SGD".
    """
    with torch.no_grad():
        total: Tensor = fold(graph).walk(_RULES, _unknown)
    return float(total[0].sum().sqrt())


def _unknown(step: Step, _values: list[Tensor]) -> Tensor:
    step.refuse("the path norm (which path=False leaves out)")


def _ones(step: Step, _values: list[Tensor]) -> Tensor:
    return torch.ones((2, *step.shape), dtype=torch.float64, device="cpu")


def _linear(step: Step, values: list[Tensor]) -> Tensor:
    return F.linear(values[0], *_squared_weights(step))


def _convolution(step: Step, values: list[Tensor]) -> Tensor:
    weight, bias = _squared_weights(step)
    o = step.options
    convolve = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    return convolve(values[0], weight, bias, o["stride"], o["padding"], o["dilation"], o["groups"])


def _squared_weights(step: Step) -> tuple[Tensor, Tensor | None]:
    bias = step.tensors.get("bias")
    return step.tensors["weight"].square(), None if bias is None else bias.square()


def _affine(step: Step, values: list[Tensor]) -> Tensor:
    return step.tensors["scale"].square() * values[0] + step.tensors["shift"].square()


def _add(step: Step, values: list[Tensor]) -> Tensor:
    factors = step.options["factors"]
    return torch.stack([factor**2 * value for factor, value in zip(factors, values, strict=True)]).sum(0)


def _max_pool(step: Step, values: list[Tensor]) -> Tensor:
    return _window_sums(step, values[0])


def _average_pool(step: Step, values: list[Tensor]) -> Tensor:
    ones = torch.ones_like(values[0])
    inverse = step.call(ones) / _window_sums(step, ones)  # 1 / |P|, with or without the padding in |P|.
    return step.call(values[0]) * inverse


def _adaptive_average_pool(step: Step, values: list[Tensor]) -> Tensor:
    return step.call(values[0]) / _adaptive_counts(step, values[0])


def _adaptive_max_pool(step: Step, values: list[Tensor]) -> Tensor:
    average: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(step.shape) - 2]
    means: Tensor = average(values[0], step.shape[1:])
    return means * _adaptive_counts(step, values[0])


def _adaptive_counts(step: Step, value: Tensor) -> Tensor:
    """Size |P| of each window: ceil((i + 1) n / m) - floor(i n / m) per axis."""
    counts = torch.ones((), dtype=torch.float64, device="cpu")
    for inputs, outputs in zip(value.shape[2:], step.shape[1:], strict=True):
        i = torch.arange(outputs, device="cpu")
        counts = counts[..., None] * (-(-(i + 1) * inputs // outputs) - i * inputs // outputs)
    return counts


def _window_sums(step: Step, value: Tensor) -> Tensor:
    """Sum over each window, by a zero-padded convolution with ones."""
    o = step.options
    kernel, dilation = o["kernel"], o.get("dilation", (1,) * len(o["kernel"]))
    axes = zip(step.shape[1:], value.shape[2:], o["stride"], dilation, kernel, o["padding"], strict=True)
    # ceil_mode lets the last window reach beyond the padded input, where zeros add nothing.
    beyond = [max(0, (out - 1) * s + d * (k - 1) + 1 - n - p) for out, n, s, d, k, p in axes]
    sides = [side for p, b in zip(reversed(o["padding"]), reversed(beyond), strict=True) for side in (p, b)]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    ones = torch.ones((value.shape[1], 1, *kernel), dtype=torch.float64, device="cpu")
    sums: Tensor = convolve(F.pad(value, sides), ones, stride=o["stride"], dilation=dilation, groups=value.shape[1])
    for axis, size in enumerate(step.shape[1:], start=2):
        sums = sums.narrow(axis, 0, size)
    return sums


_RULES: dict[str, Callable[[Step, list[Any]], Any]] = {
    "input": _ones,
    "linear": _linear,
    "convolution": _convolution,
    "affine": _affine,
    "activation": lambda _step, values: values[0],
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "adaptive_average_pool": _adaptive_average_pool,
    "adaptive_max_pool": _adaptive_max_pool,
    "mean": lambda step, values: step.call(values[0]) / step.options["count"],
    "sum": lambda step, values: step.call(values[0]),
    "extremum": lambda step, values: values[0].sum([dim + 1 for dim in step.options["dims"]], step.options["keepdim"]),
    "larger": lambda _step, values: values[0] + values[1],
    "add": _add,
    "concatenate": lambda step, values: step.call(*values),
    "rearrange": lambda step, values: step.call(values[0]),
}
