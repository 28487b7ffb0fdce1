"""Rise of the logits under small smooth deformations of the images, a lower bound of the RKHS norm."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.fixed import REACH
from flatprobe.attacks.points import Points, Values, per_sample
from flatprobe.training.forward import ForwardPass
from flatprobe.training.penalties.classes import check_classes, climb, sum_maxima
from flatprobe.training.transforms.displacement import (
    GRADIENT_WEIGHT,
    SIZE_WEIGHT,
    check_deformable,
    deform,
    roughness,
    scale_within,
    smooth,
)
from flatprobe.utils.arguments import Number, Whole, at_least, given, positive

# Reach in pixels up to which all translations by whole pixels are tried: 49 of them.
_FINE = 4


@dataclass(frozen=True)
class AdversarialDeformation:
    """P = sum_k max_i (max_{C(tau) <= 1} f_k(x_tau) - f_k(x_i))^2, f_k the logits, x_tau the image deformed by tau.

    C(tau) = c1 sup ||grad tau||_2 + c2 sup ||tau||_2 over displacements that are bilinear between the nodes of a grid
    (`flatprobe.training.transforms.displacement`). The inner maximum is searched by ascent. The first step goes to
    C = 1 along the smoothed gradient at tau = 0, or to the best translation by whole pixels with C <= 1 (12 at the
    default c2) if it is higher. Further steps have the length 2.5 / steps, measured by C, along the smoothed gradient,
    each scaled back onto C <= 1. The best tau is detached. P is a lower bound of the formula, which is a lower bound of
    ||f||_H^2; P is at least the value at these translations. Sampled if classes are drawn.

    Cost, without a graph: 1 forward pass per translation; 1 forward pass per class; 1 forward and 1 backward pass to
    the inputs per step and class. The gradient is that of each maximum's sample: 1 forward pass for all classes, or as
    many as classes share a sample.

    BatchNorm: the batch's statistics, detached in the ascent; f_k(x_i) and f_k(x_tau) are normalized with them
    (`ForwardPass.again`).

    P is no mean but a sum over classes of maxima over the batch, which grow with its size.

    Args:
        grid: nodes per side; 4 is ours: smooth deformations, with nodes 9 pixels apart on a 28 x 28 image.
        c1: 2: then ||grad tau|| <= 1/2, which the stability theorem of Bietti and Mairal 2019 assumes.
        c2: per pixel; 0.5: no pixel moves by more than 2. Ours: B19 gives no constants.
        steps: of each ascent. 5 is ours: raise it and see whether P grows.
        classes: `"all"`, or the number of classes drawn in each pass, without repetition: their sum times C / classes
            is unbiased, in value and in gradient.

    Raises:
        ValueError: for constants that are not positive and finite, fewer than 1 node, step or class, or another word.
        ValueError: when called, for inputs that are no images (samples, channels, height, width).
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Bietti et al. (2019), adversarial deformations [B19].

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
        check_deformable(images)

        shifts = self._translations(images)
        _ = passed.logits  # The first pass keeps its graph.
        with torch.no_grad():
            heights = torch.stack([passed.again(deform(images, shift)) for shift in shifts])

        def stepped(tau: Tensor, gradient: Points, size: float) -> Tensor:
            slope = _pulled_back(images, tau, gradient)
            slope = smooth(slope, images.shape[2:], c1=self.c1, c2=self.c2)
            steepness = self._roughness(slope, images)
            there = tau + per_sample(size / torch.where(steepness > 0, steepness, 1), slope) * slope
            return scale_within(there, self._roughness(there, images))

        def walk(k: int) -> tuple[Points, Values]:
            def moved(tau: Tensor | None, gradient: Points) -> tuple[Tensor, Points]:
                if tau is not None:
                    there = stepped(tau, gradient, REACH / self.steps)
                else:
                    there = stepped(torch.zeros_like(shifts[0]), gradient, 1.0)
                    with torch.no_grad():
                        reached = passed.again(deform(images, there))[:, k]
                    best, own = heights[..., k].max(0)
                    shifted = torch.stack(shifts)[own, torch.arange(len(images), device=images.device)]
                    there = torch.where(per_sample(best > reached, there), shifted, there)
                return there, deform(images, there)

            return climb(passed, k, self.steps, moved)

        return sum_maxima(passed, self.classes, "adversarial_deformation", walk)

    def _translations(self, images: Points) -> list[Tensor]:
        """Zero and the translations by whole pixels with C <= 1, in larger steps beyond a reach of 4 pixels."""
        reach = 1 / self.c2
        apart = max(1, math.ceil(reach / _FINE))
        steps = range(-math.floor(reach / apart), math.floor(reach / apart) + 1)
        pairs = [(x * apart, y * apart) for x in steps for y in steps if 0 < math.hypot(x, y) * apart <= reach]
        return [
            images.new_tensor(pair).view(1, 2, 1, 1).expand(len(images), 2, self.grid, self.grid)
            for pair in [(0, 0), *pairs]
        ]

    def _roughness(self, tau: Tensor, images: Points) -> Values:
        return roughness(tau, images.shape[2:], c1=self.c1, c2=self.c2)


def _pulled_back(images: Points, tau: Tensor, gradient: Points) -> Tensor:
    """The gradient in the displacement from the gradient in the deformed images."""
    variable = tau.detach().requires_grad_()
    (found,) = torch.autograd.grad(deform(images, variable), variable, gradient)
    return found
