"""Traced operations computed again on numbers, in float64 on the CPU."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from flatprobe.graph.values import Value

# Two samples, since torch.export takes a dimension of size 1 for a constant that squeezes may drop.
SAMPLES = 2


def repeats(call: Any, shape: tuple[int, ...]) -> int | None:
    """How often the entry of a sample that is found most often is found in the result; None where samples are mixed.

    Every entry of two samples is given a number of its own, and looked for.
    """
    size = math.prod(shape)
    numbers = torch.arange(1, 2 * size + 1, dtype=torch.float64, device="cpu").view(SAMPLES, *shape)
    try:
        first, second = (part.flatten() for part in call(numbers))
    except RuntimeError:  # the first dimension of what it takes is not that of the samples
        return None
    if bool((first > size).any()) or bool(((second != 0) & (second <= size)).any()):
        return None
    counts = torch.bincount(first.long(), minlength=size + 1)[1:]
    return int(counts.max()) if size else 0


def replay(node: fx.Node, args: Any, kwargs: Any, place: int) -> Any:
    """Values of the sources -> the operation's value, or the one at this place of several, in float64."""
    target: Any = node.target

    def call(*values: Tensor) -> Tensor:
        left = iter(values)

        def put(part: Any) -> Any:
            return next(left).clone() if isinstance(part, Value) else part  # a clone, which it may write to

        result = computed(target, *fx.node.map_aggregate((args, kwargs), put))
        value: Tensor = result[place] if isinstance(result, tuple | list) else result
        return value

    return call


def computed(target: Any, args: Any, kwargs: Any) -> Any:
    """The operation's result; what makes or converts tensors does so in float64 on the CPU."""

    def widened(part: Any) -> Any:
        if isinstance(part, torch.device):
            return torch.device("cpu")
        return torch.float64 if isinstance(part, torch.dtype) and part.is_floating_point else part

    args, kwargs = fx.node.map_aggregate((args, kwargs), widened)
    with torch.no_grad():
        return target(*args, **kwargs)
