"""Folding of affine steps into the layers before them."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from flatprobe.graph.steps import Graph, Step


def fold(graph: Graph) -> Graph:
    """The graph with `affine` steps folded into the layers before them.

    A step is folded if it alone follows a linear layer or convolution. The function stays the same. The layer keeps its
    name, and `options["folded"]` names the folded steps. A scale that varies within a channel of a convolution is not
    folded.
    """
    steps = list(graph.steps)
    moved = list(range(len(steps)))  # The step that computes the value of each step.
    for index, step in enumerate(graph.steps):
        if step.kind != "affine":
            continue
        before = moved[step.sources[0]]
        if len(graph.users(step.sources[0])) == 1 and (layer := _fold_into(steps[before], step)) is not None:
            steps[before] = layer
            moved[index] = before
    kept = [index for index in range(len(steps)) if moved[index] == index]
    place = {index: position for position, index in enumerate(kept)}
    order = [place[moved[index]] for index in range(len(steps))]
    result = [replace(steps[i], sources=tuple(order[source] for source in steps[i].sources)) for i in kept]
    return Graph(tuple(result), graph.network)


def _fold_into(layer: Step, affine: Step) -> Step | None:
    if layer.kind not in {"linear", "convolution"}:
        return None
    channel = len(layer.shape) - 1 if layer.kind == "linear" else 0
    names = ("scale", "shift", "magnitude")
    scale, shift, magnitude = (_by_channel(affine.tensors[name], layer.shape, channel) for name in names)
    if scale is None or shift is None or magnitude is None:
        return None
    weight = layer.tensors["weight"] * scale.view(-1, *[1] * (layer.tensors["weight"].ndim - 1))
    before = layer.tensors.get("bias", torch.zeros_like(shift))
    bias = before * scale + shift
    magnitude = layer.tensors.get("magnitude", before.abs()) * scale.abs() + magnitude
    options = {**layer.options, "folded": (*layer.options.get("folded", ()), affine.layer)}
    tensors = {"weight": weight, "bias": bias, "magnitude": magnitude}
    return replace(layer, tensors=tensors, options=options, call=apply(layer, weight, bias))


def _by_channel(value: Tensor, shape: tuple[int, ...], channel: int) -> Tensor | None:
    """The value per channel, (channels,); None if it varies within a channel."""
    full = value.reshape((1,) * (len(shape) - value.ndim) + tuple(value.shape))
    if any(size != 1 for dim, size in enumerate(full.shape) if dim != channel):
        return None
    return full.flatten().expand(shape[channel])


def apply(layer: Step, weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
    """The function of a linear layer or convolution with other weights."""
    if layer.kind == "linear":
        return lambda value: F.linear(value, weight, bias)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    o = layer.options
    return lambda value: convolve(value, weight, bias, o["stride"], o["padding"], o["dilation"], o["groups"])
