"""Evaluation of traced operations on numbers, in float64 on the CPU."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from flatprobe.graph.values import Value

# torch.export treats a dimension of size 1 as a constant that a squeeze may drop; two samples avoid it.
SAMPLES = 2


def count_repeats(call: Any, shape: tuple[int, ...]) -> int | None:
    """The largest number of copies of an entry; None if samples mix.

    The entries of two samples are numbered, and the numbers in the result are counted.
    """
    size = math.prod(shape)
    numbers = torch.arange(1, 2 * size + 1, dtype=torch.float64, device="cpu").view(SAMPLES, *shape)
    try:
        first, second = (part.flatten() for part in call(numbers))
    except RuntimeError:  # The first dimension is not that of the samples.
        return None
    if bool((first > size).any()) or bool(((second != 0) & (second <= size)).any()):
        return None
    counts = torch.bincount(first.long(), minlength=size + 1)[1:]
    return int(counts.max()) if size else 0


def replay(node: fx.Node, args: Any, kwargs: Any, place: int) -> Any:
    """Function from the values of the sources to a value of the operation."""
    target: Any = node.target

    def call(*values: Tensor) -> Tensor:
        left = iter(values)

        def put(part: Any) -> Any:
            return next(left).clone() if isinstance(part, Value) else part  # The operation may write to the clone.

        result = compute(target, *fx.node.map_aggregate((args, kwargs), put))
        value: Tensor = result[place] if isinstance(result, tuple | list) else result
        return value

    return call


def compute(target: Any, args: Any, kwargs: Any) -> Any:
    """Result of an operation in float64 on the CPU."""

    def widened(part: Any) -> Any:
        if isinstance(part, torch.device):
            return torch.device("cpu")
        return torch.float64 if isinstance(part, torch.dtype) and part.is_floating_point else part

    args, kwargs = fx.node.map_aggregate((args, kwargs), widened)
    with torch.no_grad():
        return target(*args, **kwargs)
