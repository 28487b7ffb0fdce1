"""Constraints on the weights, one file each: applied in place to the initial weights and after each step.

A constraint is any callable `constraint(module, layers)` on the module and the layers of one forward pass, whose
weights are the module's parameters. Parameters that require no gradient do not change, as in training.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from flatprobe.training.constraints.ball import Ball
from flatprobe.training.constraints.box import Box
from flatprobe.training.constraints.spectral_projection import SpectralProjection
from flatprobe.training.constraints.unit_rows import UnitRows
from flatprobe.training.forward import Layer

Constraint = Callable[[nn.Module, Sequence[Layer]], None]

CONSTRAINTS: dict[str, Callable[..., Any]] = {
    "box": Box,
    "ball": Ball,
    "spectral_projection": SpectralProjection,
    "unit_rows": UnitRows,
}

__all__ = ["CONSTRAINTS", "Ball", "Box", "Constraint", "SpectralProjection", "UnitRows"]


def __dir__() -> list[str]:
    return sorted(__all__)
