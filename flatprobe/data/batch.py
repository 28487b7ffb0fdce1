"""A batch of labelled data."""

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from flatprobe.data.inputs import Inputs


@dataclass(frozen=True)
class Batch:
    """The samples start, ..., start + len(labels) - 1 of a data set, with the class names where known."""

    inputs: Inputs
    labels: Int64[Tensor, " samples"]
    start: int
    class_names: list[str] | None = None
