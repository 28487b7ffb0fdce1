"""Arguments of a traced operation, and the parts of a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatprobe.graph.steps import broadcast

Parts = tuple[str, dict[str, Tensor], dict[str, Any]]
Arguments = Mapping[str, Any]
Reader = Callable[[Arguments], Parts]


@dataclass(frozen=True)
class Value:
    """An argument that depends on the input of the network.

    Attributes:
        index: the index of its step.
        shape: the shape for one sample.
    """

    index: int
    shape: tuple[int, ...]


OTHER: Parts = ("other", {}, {})


def constant(value: Any) -> Tensor:
    """A number or a tensor in float64."""
    return (
        value.double() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64, device="cpu")
    )


def fit_constant(value: Any, like: Value) -> Tensor | None:
    """A constant, broadcast against one sample, if this is possible."""
    if isinstance(value, Value):
        return None
    part = broadcast(constant(value), like.shape)
    if part is None or any(size not in {1, own} for size, own in zip(part.shape, like.shape, strict=True)):
        return None
    return part


def dimensions(a: Arguments) -> tuple[int, ...]:
    """Dimensions of a reduction within one sample; () if it includes samples."""
    given, count = a.get("dim"), len(a["self"].shape) + 1
    dims = tuple(dim % count for dim in ((given,) if isinstance(given, int) else given or ()))
    return () if 0 in dims else tuple(dim - 1 for dim in dims)
