"""A batch of labelled data."""

from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

from flatprobe.data.inputs import Inputs
from flatprobe.utils.arguments import at_least


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of a data set from `start` on, their targets, and known class names."""

    inputs: Inputs
    labels: Shaped[Tensor, "samples ..."]
    start: int
    class_names: list[str] | None = None


def split(count: int, batch_size: int) -> list[range]:
    """Positions 0, ..., count - 1 in consecutive ranges; the last may be short.

    Raises:
        ValueError: if the batch size is below 1.
    """
    at_least(1, batch_size=batch_size)
    batch_size = int(batch_size)  # NumPy's narrow integers overflow.
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
