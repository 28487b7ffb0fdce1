"""Projection of a network in training onto its constraints."""

import copy

import torch
from torch import nn

from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.training.constraints import Constraint
from flatprobe.training.forward import ForwardPass, Layer
from flatprobe.utils.seeding import seeded


class Projection:
    """The constraints, applied in order and in place to the initial weights and after each step.

    Args:
        module: the network in training.
        risk: the risk over the training data. Two samples show the layers and their input sizes, in eval mode and in
            training mode, where a network may apply more layers, such as auxiliary heads.
        constraints: copied, since some keep a memory between steps.
    """

    def __init__(self, module: nn.Module, risk: EmpiricalRisk, constraints: tuple[Constraint, ...]) -> None:
        self.constraints = copy.deepcopy(constraints)
        self._module = module
        self._layers: tuple[Layer, ...] = ()
        if constraints:
            seen = self._seen(risk)
            with seeded("constraints", device=risk.network.device):
                module.train()
                in_training = self._seen(risk)
                module.eval()
            known = {layer.name for layer in seen}
            self._layers = (*seen, *(layer for layer in in_training if layer.name not in known))

    def __call__(self, *, settle: bool = False) -> None:
        """Project the weights onto each constraint in order; only the last one holds exactly.

        Args:
            settle: True at the end of an epoch: call the `settle` of the constraints that have it, in which estimates
                that are tracked from step to step converge again.
        """
        if not self.constraints:  # Every step without constraints ends here.
            return
        with torch.no_grad():
            for constraint in self.constraints:
                move = getattr(constraint, "settle", None) if settle else constraint
                if move is not None:
                    move(self._module, self._layers)

    def _seen(self, risk: EmpiricalRisk) -> tuple[Layer, ...]:
        inputs, labels = risk.data.gather(torch.arange(min(2, len(risk.data)), device="cpu"))
        placed = risk.network
        own = placed.prepare(inputs), labels.to(placed.device)
        return ForwardPass(self._module, *own, lay_out=placed.laid_out, updates=False).layers
