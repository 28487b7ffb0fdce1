"""Coefficients of interpolation landscapes: even grids on the simplex and on the segment."""

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.utils.arguments import Whole, at_least, given

Coefficients = Float64[Tensor, "points endpoints"]


def simplex(endpoints: Whole = 3, steps: Whole = 20) -> Coefficients:
    """All lambda >= 0 with sum 1 whose entries are multiples of 1/steps: (m+1)(m+2)/2 points for three endpoints.

    Args:
        endpoints: number of endpoints, at least 2.
        steps: m, intervals along each side; 20 is our choice (231 points), since T3 gives none.

    Returns:
        (points, endpoints) coefficients; the corners are exact.

    Raises:
        ValueError: for fewer than 2 endpoints or 1 step.

    >>> simplex(3, steps=1).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    given(endpoints=endpoints, steps=steps)
    at_least(2, endpoints=endpoints)
    at_least(1, steps=steps)
    return torch.tensor(_compositions(int(steps), int(endpoints)), dtype=torch.float64, device="cpu") / int(steps)


def _compositions(total: int, parts: int) -> list[list[int]]:
    if parts == 1:
        return [[total]]
    return [[first, *rest] for first in range(total, -1, -1) for rest in _compositions(total - first, parts - 1)]


def segment(steps: Whole = 21) -> Coefficients:
    """Coefficients of evenly spaced points from the first endpoint (1, 0) to the second (0, 1), both included.

    Args:
        steps: number of points; 21 is our choice, which includes the middle.

    Returns:
        (steps, 2) coefficients.

    Raises:
        ValueError: for fewer than 2 points.

    >>> segment(steps=3).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    given(steps=steps)
    at_least(2, steps=steps)
    t = torch.arange(steps, dtype=torch.float64, device="cpu") / (int(steps) - 1)
    return torch.stack([1 - t, t], 1)
