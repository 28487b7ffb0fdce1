"""Adversarial training by projected gradient steps (Madry et al. 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.fixed import ascend, start_randomly
from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels
from flatprobe.training.transforms.budgets import as_box, ascent_direction, budgets, check_budget
from flatprobe.utils.arguments import Flag, Number, Whole, at_least, flag, given


@dataclass(frozen=True)
class PGD:
    """x' <- P(x' + a argmax_{||v|| <= 1} v . grad_x l(f(x'), y)), P the projection onto the budget's ball and the box.

    The step a is 2.5 budgets divided by the number of steps. Training takes the last point, adversarial or not. l is as
    in `FGSM`. Cost: 1 forward and 1 backward pass to the inputs per step, and 1 forward pass at x, whose BatchNorm
    statistics and dropout mask all steps repeat (without a random start the first step shares it).

    Args:
        budget: e, in the inputs' units.
        norm: `"linf"` (Madry et al.'s) or `"l2"`.
        steps: 7, as Madry et al. train on CIFAR-10 (on MNIST they take 40).
        random_start: True: start at a uniformly random point of the cube (linf) or of the sphere (l2) of the budget,
            drawn anew in each training step, as Madry et al. do; False: start at x.
        box: (low, high), the range of all inputs. None: no box.

    Raises:
        ValueError: for a budget that is not positive and finite, another norm, fewer than 1 step, or a box that is no
            interval.

    Source: Madry et al. (2018), "Towards deep learning models resistant to adversarial attacks", section 5. The
    measuring attacks `fgsm` and `pgd` of `flatprobe.attacks` take the same steps.

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.zeros(1, 2), torch.tensor([0]), key=(0,))
    >>> PGD(0.25)(passed)[0]
    tensor([[-0.2500,  0.2500]])
    """

    budget: Number
    norm: str = "linf"
    steps: Whole = 7
    random_start: Flag = True
    box: Sequence[float] | Any | None = None

    def __post_init__(self) -> None:
        flag(random_start=self.random_start)
        check_budget(self.budget, self.norm)
        object.__setattr__(self, "box", as_box(self.box))
        given(steps=self.steps)
        at_least(1, steps=self.steps)

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples ..."], Labels]:
        """The perturbed inputs, and the unchanged labels."""
        box = as_box(self.box)
        inputs = passed.inputs.detach()
        budget, current, at = budgets(self.budget, inputs), inputs, None
        if self.random_start:
            noise = passed.normal(tuple(inputs.shape), "pgd")
            current = at = start_randomly(inputs, noise, budget, norm=self.norm, box=box)
        for _ in range(self.steps):
            gradient = ascent_direction(passed, at)
            current = at = ascend(current, gradient, inputs, budget, norm=self.norm, box=box, steps=self.steps)
        return current, passed.labels
