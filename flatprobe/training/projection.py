"""Constraints on the weights, applied to the network that is trained."""

import copy

import torch
from torch import nn

from flatprobe.risk import EmpiricalRisk
from flatprobe.training.constraints import Constraint
from flatprobe.training.passes import ForwardPass, Layer


class Projection:
    """Applies the constraints one after the other, in place, to the initial weights and after each step.

    Args:
        module: the network that is trained.
        risk: over its training data, of which one sample shows the layers' input sizes.
        constraints: copied, since some keep a memory from step to step.
    """

    def __init__(self, module: nn.Module, risk: EmpiricalRisk, constraints: tuple[Constraint, ...]) -> None:
        self.constraints = copy.deepcopy(constraints)
        self._module = module
        self._layers: tuple[Layer, ...] = ()
        if constraints:
            inputs, labels = risk.data.gather(torch.arange(1))
            placed = risk.network
            passed = ForwardPass(module, placed.prepare(inputs), labels.to(placed.device), lay_out=placed.laid_out)
            self._layers = passed.layers

    @torch.no_grad()
    def __call__(self) -> None:
        """Move the weights into all constraints."""
        for constraint in self.constraints:
            constraint(self._module, self._layers)
