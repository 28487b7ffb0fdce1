"""Projection of the weights onto a ball."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flatprobe.training.constraints.trained import trained_parameters
from flatprobe.training.forward import Layer
from flatprobe.utils.arguments import Number, given, positive


@dataclass(frozen=True)
class Ball:
    """K = {w : ||w||_2 <= radius}, and the nearest point of it: w <- min(1, radius / ||w||) w.

    The ball is around the origin. w is the vector of all trained parameters, including biases and BatchNorm's scales
    and shifts. Exact but for rounding, after each step; see `Box`.

    Args:
        radius: the largest l2 norm of all weights together.

    Raises:
        ValueError: for a radius that is not positive and finite.

    Source: Poggio et al. (2017), eq. 4 [T3].

    >>> network = nn.Linear(2, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[3.0, 4.0]]))
    ...     Ball(10.0)(network, ())
    ...     Ball(2.5)(network, ())
    >>> network.weight.tolist()
    [[1.5, 2.0]]
    """

    radius: Number

    def __post_init__(self) -> None:
        given(radius=self.radius)
        positive(radius=self.radius)

    @torch.no_grad()
    def __call__(self, module: nn.Module, _layers: Sequence[Layer], /) -> None:
        """Scale the weights in place."""
        found = trained_parameters(module)
        if not found:
            return
        # The norm stays on the weights' device: to read it would wait for the device in each step.
        total = torch.stack([value.norm(dtype=torch.float64) for value in found]).norm()
        factor = (self.radius / total).clamp(max=1)
        for value in found:
            value.mul_(factor.to(value.dtype))
