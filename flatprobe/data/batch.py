"""A batch of labelled data."""

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from flatprobe.data.inputs import Inputs


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of a data set from `start` on, and known class names."""

    inputs: Inputs
    labels: Int64[Tensor, " samples"]
    start: int
    class_names: list[str] | None = None
