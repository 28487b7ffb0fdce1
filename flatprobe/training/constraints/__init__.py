"""Constraints on the weights, one file each: applied in place to the initial weights and after each step.

A constraint is any callable `constraint(module, layers)`; the layers are those of one forward pass, and their weights
the module's own parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from flatprobe.training.passes import Layer

Constraint = Callable[[nn.Module, Sequence[Layer]], None]

CONSTRAINTS: dict[str, Callable[..., Any]] = {}

__all__ = ["CONSTRAINTS", "Constraint"]
