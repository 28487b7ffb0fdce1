"""Rise of the logits within a ball around the inputs, a lower bound of the RKHS norm."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.fixed import ascend
from flatprobe.attacks.points import Points, Values
from flatprobe.training.forward import ForwardPass
from flatprobe.training.penalties.classes import check_classes, climb, sum_maxima
from flatprobe.training.transforms.budgets import budgets
from flatprobe.utils.arguments import Number, Whole, at_least, given, positive


@dataclass(frozen=True)
class AdversarialPerturbation:
    """P = sum_k max_i (max_{||v||_2 <= e} (f_k(x_i + v) - f_k(x_i)) / e)^2, f_k the logits.

    The inner maximum is searched by projected ascent from v = 0 in unit-gradient steps of 2.5 e / steps, as `pgd` of
    `flatprobe.attacks` does, and the best v is detached. P is a lower bound of the formula, which is a lower bound of
    ||f||_H^2. Sampled if classes are drawn.

    Cost: 1 forward and 1 backward pass to the inputs per step and class, without a graph. The gradient is that of each
    maximum's sample: 1 forward pass for all classes, or as many as classes share a sample.

    BatchNorm: the batch's statistics, detached in the ascent; f_k(x_i) and f_k(x_i + v) are normalized with them
    (`ForwardPass.again`).

    P is no mean but a sum over classes of maxima over the batch, which grow with its size.

    Args:
        radius: e, an l2 length in the inputs' units; B19 has 1.
        steps: of each ascent. 5 is ours: for networks of more curvature, raise it and see whether P grows.
        classes: `"all"`, or the number of classes drawn in each pass, without repetition: their sum times C / classes
            is unbiased, in value and in gradient.

    Raises:
        ValueError: for a radius that is not positive and finite, fewer than 1 step or class, or another word.
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Bietti et al. (2019), adversarial perturbations, summed over classes [B19].

    >>> import torch
    >>> network = torch.nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[0.0, 1.0], [3.0, 4.0]]))
    >>> round(AdversarialPerturbation()(ForwardPass(network, torch.ones(1, 2), torch.tensor([0]))).item(), 4)
    26.0
    """

    radius: Number = 1.0
    steps: Whole = 5
    classes: str | Whole = "all"

    def __post_init__(self) -> None:
        given(radius=self.radius, steps=self.steps)
        positive(radius=self.radius)
        at_least(1, steps=self.steps)
        check_classes(self.classes)

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        inputs = passed.inputs.detach()
        budget = budgets(self.radius, inputs)

        def moved(current: Tensor | None, gradient: Points) -> tuple[Tensor, Points]:
            start = inputs if current is None else current
            points = ascend(start, gradient, inputs, budget, norm="l2", box=None, steps=self.steps)
            return points, points

        def walk(k: int) -> tuple[Points, Values]:
            return climb(passed, k, self.steps, moved)

        return sum_maxima(passed, self.classes, "adversarial_perturbation", walk) / self.radius**2
