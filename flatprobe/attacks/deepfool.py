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
    class_gradients,
    dual_length,
    roughly,
)

STEPS = 50
_OVERSHOOT = 0.02  # the paper's eta


def deepfool(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """x' <- x' + r, r the least step onto the nearest of the boundaries z_j = z_y linearised at x'.

    A sample stops where its class changes, after 2 or 3 steps as a rule; each costs one forward pass and C backward
    passes. With a box, r is the least step within it. The draws are not used.

    Source: Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks",
    algorithm 2, section 3.3 for linf. The overshoot is applied to each step, since with a box their sum is no
    direction.
    """
    del draw  # this attack is deterministic
    start = inputs.flatten(1)
    current, found = start, Perturbed.none(start)
    rows = torch.arange(len(start), device=start.device)

    def flat(points: Tensor) -> Tensor:
        return forward(points.view_as(inputs))

    for step in range(steps + 1):
        if step == steps:
            with torch.no_grad():
                logits, gradients = flat(current), None
        else:
            logits, gradients = class_gradients(flat, current, labels)
        found = found.closer(current, roughly(current, start, norm), adversarial(logits, labels))
        going = found.distance.isinf()
        if gradients is None or not bool(going.any()):
            break
        heights = logits - logits.gather(1, labels[:, None])
        lengths = dual_length(gradients.flatten(0, 1), norm).view_as(heights).clamp_min(torch.finfo(heights.dtype).tiny)
        chosen = (heights.abs() / lengths).scatter(1, labels[:, None], torch.inf).argmin(1)
        # A class that leads by rounding alone still has to be passed: the least gap is a few roundings of its own.
        gap = heights[rows, chosen].abs() * (1 + _OVERSHOOT) + 64 * torch.finfo(heights.dtype).eps * logits.abs().amax(
            1
        )
        moved = nearest(current, gradients[rows, chosen], gap, norm, box)
        current = torch.where(going[:, None], moved, current)
    return Perturbed(found.points.view_as(inputs), found.distance)
