"""DeepFool: step by step onto the nearest linearised boundary until the class changes."""

import torch
from torch import Tensor

from flatprobe.attacks.halfspace import nearest
from flatprobe.attacks.points import (
    Box,
    Draw,
    Forward,
    Labels,
    Perturbed,
    Points,
    adversarial,
    nearest_class,
    roughly,
)

STEPS = 50
_OVERSHOOT = 0.02  # the paper's eta
_CANDIDATES = 10  # runners-up among which a step chooses, as in the paper's own code


def deepfool(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """x' <- x' + r, r the least step onto the nearest of the boundaries z_j = z_y linearised at x'.

    A sample stops where its class changes, after 2 or 3 steps as a rule; each costs one forward pass and one backward
    pass for each of the 10 runners-up. With a box, r is the least step within it. The draws are not used.

    Source: Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks",
    algorithm 2, section 3.3 for linf. The overshoot is applied to each step, since with a box their sum is no
    direction.
    """
    del draw  # this attack is deterministic
    start = inputs.flatten(1)
    current, found = start, Perturbed.none(start)

    def flat(points: Tensor) -> Tensor:
        return forward(points.view_as(inputs))

    for _ in range(steps):
        logits, height, gradient = nearest_class(flat, current, labels, norm, _CANDIDATES)
        found = found.closer(current, roughly(current, start, norm), adversarial(logits, labels))
        going = found.distance.isinf()
        if not bool(going.any()):
            break
        # A class that leads by rounding alone still has to be passed: the least gap is a few roundings of its own.
        gap = height.abs() * (1 + _OVERSHOOT) + 64 * torch.finfo(height.dtype).eps * logits.abs().amax(1)
        current = torch.where(going[:, None], nearest(current, gradient, gap, norm, box), current)
    with torch.no_grad():
        crossed = adversarial(flat(current), labels) & found.distance.isinf()
    found = found.closer(current, roughly(current, start, norm), crossed)
    return Perturbed(found.points.view_as(inputs), found.distance)
