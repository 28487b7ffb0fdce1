"""DeepFool: steps onto the nearest linearized boundary until the class changes."""

import torch
from torch import Tensor

from flatprobe.attacks.halfspace import nearest_point
from flatprobe.attacks.points import (
    Box,
    Draw,
    Forward,
    Labels,
    Perturbed,
    Points,
    adversarial,
    nearest_class,
    rough_distance,
)

STEPS = 50
_OVERSHOOT = 0.02  # the paper's eta
_CANDIDATES = 10  # classes with the next largest logits among which a step chooses, as in the authors' code


def deepfool(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """DeepFool: x' <- x' + r.

    r is the smallest step onto the nearest boundary z_j = z_y linearized at x'.

    A sample stops where its class changes, usually after 2 or 3 steps. With a box, r is the smallest step within the
    box. Cost: 1 forward pass and up to 10 backward passes per step, one per candidate class. The draws are not used.

    Source: Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks",
    algorithm 2, section 3.3 for linf. The overshoot is applied to each step, since within a box the sum of the
    steps is no direction.
    """
    del draw  # this attack is deterministic
    start = inputs.flatten(1)
    current, found = start, Perturbed.none(start)

    def flat(points: Tensor) -> Tensor:
        return forward(points.view_as(inputs))

    for _ in range(steps):
        logits, height, gradient = nearest_class(flat, current, labels, norm, _CANDIDATES)
        found = found.closer(current, rough_distance(current, start, norm), adversarial(logits, labels))
        going = found.distance.isinf()
        if not bool(going.any()):
            break
        # A class that leads by rounding alone is not passed yet: the smallest gap is a few roundings.
        gap = height.abs() * (1 + _OVERSHOOT) + 64 * torch.finfo(height.dtype).eps * logits.abs().amax(1)
        current = torch.where(going[:, None], nearest_point(current, gradient, gap, norm, box), current)
    with torch.no_grad():
        crossed = adversarial(flat(current), labels) & found.distance.isinf()
    found = found.closer(current, rough_distance(current, start, norm), crossed)
    return Perturbed(found.points.view_as(inputs), found.distance)
