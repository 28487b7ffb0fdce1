"""Penalties P of SPEC section 5, one file each: added to the objective as strength * P.

A penalty is any callable `penalty(passed) -> scalar` on a `ForwardPass`; these here are dataclasses whose fields are
their settings. All are means over the batch unless they say otherwise. See `ForwardPass` for what they see of BatchNorm
and dropout.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flatprobe.training.passes import ForwardPass
from flatprobe.training.penalties.double_backpropagation import DoubleBackpropagation
from flatprobe.training.penalties.jacobian_frobenius import JacobianFrobenius
from flatprobe.training.penalties.transformed import Transformed

Penalty = Callable[[ForwardPass], Tensor]

PENALTIES: dict[str, Callable[..., Any]] = {
    "jacobian_frobenius": JacobianFrobenius,
    "double_backpropagation": DoubleBackpropagation,
    "transformed": Transformed,
}

__all__ = ["PENALTIES", "DoubleBackpropagation", "JacobianFrobenius", "Penalty", "Transformed"]
