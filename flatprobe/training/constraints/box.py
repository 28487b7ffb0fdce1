"""Projection of the weights onto a box."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flatprobe.training.constraints.trained import trained_parameters
from flatprobe.training.forward import Layer
from flatprobe.utils.arguments import Number, is_number


@dataclass(frozen=True)
class Box:
    """K = {w : low <= w_j <= high}, and the nearest point of it: every weight is clipped.

    w holds all trained parameters, including biases and BatchNorm's scales and shifts. Exact, after each step:
    w <- Pi_K(w - g), g the optimizer's update. With plain SGD this is T3's projected SGD.

    Args:
        low: lower bound of every weight; None or -inf: no bound, None in the record.
        high: upper bound of every weight; None or inf: no bound, None in the record.

    Raises:
        ValueError: unless low is below high, and at least one of them is finite.

    Source: Poggio et al. (2017), eq. 4 [T3].

    >>> network = nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[3.0, -0.5]]))
    ...     Box(-1.0, 1.0)(network, ())
    >>> network.weight.tolist()
    [[1.0, -0.5]]
    """

    low: Number | None
    high: Number | None

    def __post_init__(self) -> None:
        low, high = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        if not (is_number(low) and is_number(high) and low < high and (low, high) != (-math.inf, math.inf)):
            msg = f"low is {self.low!r} and high {self.high!r}; expected low below high, or None for one of them"
            raise ValueError(msg)
        # JSON has no infinity.
        object.__setattr__(self, "low", None if low == -math.inf else self.low)
        object.__setattr__(self, "high", None if high == math.inf else self.high)

    @torch.no_grad()
    def __call__(self, module: nn.Module, _layers: Sequence[Layer], /) -> None:
        """Clip the weights in place."""
        for value in trained_parameters(module):
            value.clamp_(self.low, self.high)
