"""Projection of the weights onto a box (T3 eq. 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flatprobe.training.constraints.trained import trained_parameters
from flatprobe.training.passes import Layer


@dataclass(frozen=True)
class Box:
    """K = {w : low <= w_j <= high}, and the nearest point of it: every weight is clipped.

    The set holds all parameters that are trained, biases and BatchNorm's scales and shifts among them. Exact, after
    each step: w <- Pi_K(w - g), g the optimizer's update, which is T3's projected SGD where that is plain SGD.

    Args:
        low: of every weight.
        high: of every weight.

    Raises:
        ValueError: unless low is below high (either may be infinite).

    Source: T3 eq. 4.

    >>> network = nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[3.0, -0.5]]))
    ...     Box(-1.0, 1.0)(network, ())
    >>> network.weight.tolist()
    [[1.0, -0.5]]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            msg = f"low is {self.low} and high {self.high}; expected low below high"
            raise ValueError(msg)

    @torch.no_grad()
    def __call__(self, module: nn.Module, _layers: Sequence[Layer], /) -> None:
        """Clip the weights in place."""
        for value in trained_parameters(module):
            value.clamp_(self.low, self.high)
