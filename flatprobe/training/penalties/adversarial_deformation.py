"""How far the logits rise under small smooth deformations of the images, a lower bound of the RKHS norm (B19)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.fixed import REACH
from flatprobe.attacks.points import Points, Values, per_sample
from flatprobe.checks import Number, Whole, at_least, given, positive
from flatprobe.training.deformations import (
    GRADIENT_WEIGHT,
    SIZE_WEIGHT,
    check_images,
    deformed,
    roughness,
    smoothed,
    within,
)
from flatprobe.training.passes import ForwardPass
from flatprobe.training.penalties.classes import check_classes, highest, summed_maxima


@dataclass(frozen=True)
class AdversarialDeformation:
    """P = sum_k max_i (max_{C(tau) <= 1} f_k(x_tau) - f_k(x_i))^2, f_k the logits, x_tau the image deformed by tau.

    C(tau) = c1 sup ||grad tau||_2 + c2 sup ||tau||_2 over displacements that are bilinear between the nodes of a grid
    (`flatprobe.training.deformations`). The inner maximum is searched from tau = 0 in steps of 2.5 / steps, measured by
    C, along the smoothed gradient, each scaled back onto C <= 1, and the best tau is held constant: P is a lower bound
    of what the formula says, which is one of ||f||_H^2. Sampled where classes are drawn.

    Cost: a step takes one forward and one backward pass to the inputs a class without a graph. The gradient is that of
    each maximum's sample, in one forward pass for all classes, or as many as classes share a sample.

    BatchNorm: the batch's statistics, constants in the ascent; f_k(x_i) and the moved f_k are normalised with them
    (`ForwardPass.again`).

    A sum over classes of maxima over the batch, which grow with its size; no mean.

    Args:
        grid: nodes a side; 4 is ours: smooth deformations, 9 pixels apart on a 28 x 28 image.
        c1: 2: then ||grad tau|| <= 1/2, which the stability theorem of Bietti and Mairal 2019 assumes.
        c2: per pixel; 0.5: no pixel moves by more than 2. Ours: B19 gives no constants.
        steps: of each ascent. 5 is ours: raise it and see whether P grows.
        classes: `"all"`, or how many are drawn in each pass, without repetition: their sum times C / classes has the
            same mean, in value and in gradient.

    Raises:
        ValueError: for constants that are not positive and finite, fewer than 1 node, step or class, or another word;
            when it is called, for inputs that are no images (samples, channels, height, width), or if the logits do not
            depend differentiably on the inputs.

    Source: B19, the adversarial deformations; SPEC section 5.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2, bias=False))
    >>> _ = network[1].weight.data.copy_(torch.eye(9)[:2])
    >>> images = torch.arange(9.0).view(1, 1, 3, 3)  # they rise by 1 to the right and by 3 down
    >>> penalty = AdversarialDeformation(grid=1)  # two pixels in the best direction, but for the border
    >>> round(penalty(ForwardPass(network, images, torch.tensor([0]))).item(), 2)  # 2 (2 sqrt(1 + 9))^2
    80.0
    """

    grid: Whole = 4
    c1: Number = GRADIENT_WEIGHT
    c2: Number = SIZE_WEIGHT
    steps: Whole = 5
    classes: str | Whole = "all"

    def __post_init__(self) -> None:
        given(c1=self.c1, c2=self.c2, grid=self.grid, steps=self.steps)
        positive(c1=self.c1, c2=self.c2)
        at_least(1, grid=self.grid, steps=self.steps)
        check_classes(self.classes)

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        images = passed.inputs.detach()
        check_images(images)

        def moved(tau: Tensor | None, gradient: Points) -> tuple[Tensor, Points]:
            start = images.new_zeros(len(images), 2, self.grid, self.grid) if tau is None else tau
            slope = _pulled_back(images, start, gradient)
            slope = smoothed(slope, images.shape[2:], c1=self.c1, c2=self.c2)
            size = self._roughness(slope, images)
            step = REACH / self.steps / torch.where(size > 0, size, 1)
            there = start + per_sample(step, slope) * slope
            there = within(there, self._roughness(there, images))
            return there, deformed(images, there)

        def walk(k: int) -> tuple[Points, Values]:
            return highest(passed, k, self.steps, moved)

        return summed_maxima(passed, self.classes, "adversarial_deformation", walk)

    def _roughness(self, tau: Tensor, images: Points) -> Values:
        return roughness(tau, images.shape[2:], c1=self.c1, c2=self.c2)


def _pulled_back(images: Points, tau: Tensor, gradient: Points) -> Tensor:
    """The gradient in the deformed images as one in the displacement."""
    variable = tau.detach().requires_grad_()
    (found,) = torch.autograd.grad(deformed(images, variable), variable, gradient)
    return found
