"""Adversarial training by one step in linf or l2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.fixed import take_step
from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels
from flatprobe.training.transforms.budgets import as_box, ascent_direction, budgets, check_budget
from flatprobe.utils.arguments import Number


@dataclass(frozen=True)
class FGSM:
    """x' = x + e argmax_{||v|| <= 1} v . grad_x l(f(x), y); y' = y.

    The dual-norm maximizer is the sign of the gradient in linf and the unit gradient in l2; 0 where the gradient is 0.
    l is the objective's loss (of a `Mixture`, the mixed loss), in the network in training mode with this batch's
    BatchNorm statistics and dropout mask. Cost: 1 backward pass to the inputs in the pass over x.

    `flatprobe.adversarial_accuracy` maximizes log((1 - p_y) / p_y), whose gradient has the direction of the
    cross-entropy's. For other objectives the directions differ: training maximizes its objective's loss.

    Args:
        budget: e, in the inputs' units.
        norm: `"linf"` (Goodfellow et al.'s) or `"l2"`.
        box: (low, high), the range of all inputs, to which x' is clipped. None: no clipping.

    Raises:
        ValueError: for a budget that is not positive and finite, another norm, or a box that is no interval.

    Source: Oberman (2020), eqs 8.3 to 8.5, with the maximizer in 8.4 (docs, Definitions) [O20]; Goodfellow, Shlens and
    Szegedy (2015), "Explaining and harnessing adversarial examples".

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.zeros(1, 2), torch.tensor([0]))
    >>> FGSM(0.25)(passed)[0]
    tensor([[-0.2500,  0.2500]])
    """

    budget: Number
    norm: str = "linf"
    box: Sequence[float] | Any | None = None

    def __post_init__(self) -> None:
        check_budget(self.budget, self.norm)
        object.__setattr__(self, "box", as_box(self.box))

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples ..."], Labels]:
        """The perturbed inputs, and the unchanged labels."""
        box = as_box(self.box)
        inputs = passed.inputs.detach()
        points = take_step(inputs, ascent_direction(passed), budgets(self.budget, inputs), norm=self.norm, box=box)
        return points, passed.labels
