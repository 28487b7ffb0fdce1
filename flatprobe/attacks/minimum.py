"""Minimum-norm attacks under one signature."""

from collections.abc import Callable

import torch

from flatprobe.attacks.boundary_bisection import bisect_to_boundary
from flatprobe.attacks.ddn import ddn
from flatprobe.attacks.deepfool import deepfool
from flatprobe.attacks.fab import fab
from flatprobe.attacks.ifgsm import ifgsm
from flatprobe.attacks.log_barrier import log_barrier
from flatprobe.attacks.points import NORMS, Box, Draw, Forward, Labels, Perturbed, Points, distance, lead
from flatprobe.utils.arguments import at_least, one_of

MINIMUM_NORM: dict[str, Callable[..., Perturbed]] = {
    "ddn": ddn,
    "fab": fab,
    "log_barrier": log_barrier,
    "deepfool": deepfool,
    "ifgsm": ifgsm,
}


def minimum_norm(
    attack: str,
    forward: Forward,
    inputs: Points,
    labels: Labels,
    *,
    norm: str = "l2",
    box: Box = None,
    draw: Draw,
    steps: int | None = None,
) -> Perturbed:
    """Upper bound of min { ||x' - x|| : argmax f(x') != y } (O20 eq. 8.1).

    The attack runs on the correctly classified samples. Its points are moved onto the boundary by bisection on the
    segment to their sample. The steps and decisions of a sample do not depend on the other samples.

    Args:
        attack: a key of `MINIMUM_NORM`.
        forward: inputs -> logits, differentiable.
        inputs: x, floating, within the box.
        labels: y.
        norm: norm of the distance, `"l2"` or `"linf"`.
        box: smallest and largest value of an input, or None for all of R^d.
        draw: k -> the k-th standard normal noise, like the inputs; only `log_barrier` draws.
        steps: number of steps; None for the attack's default.

    Returns:
        `Perturbed`, with distance 0 at a sample that is misclassified (a tie counts), and `inf` where no point was
        found. Every other point was passed through the network as it is, and has another class.

    Raises:
        ValueError: for an unknown attack or norm, or fewer than 1 steps.
    """
    one_of("attack", attack, MINIMUM_NORM)
    one_of("norm", norm, NORMS)
    at_least(1, steps=steps)
    with torch.no_grad():
        logits = forward(inputs)
        height = lead(logits, labels)
        rows = (height < 0).nonzero().flatten()
    points = inputs.clone()
    distances = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    if len(rows):
        own, classes = inputs[rows], labels[rows]
        asked = forward if logits.dtype == inputs.dtype else lambda points: forward(points.to(inputs.dtype))
        options = {} if steps is None else {"steps": steps}
        found = MINIMUM_NORM[attack](asked, own, classes, norm=norm, box=box, draw=lambda k: draw(k)[rows], **options)
        if found.points.dtype != own.dtype:  # a network in several precisions was given rounded points
            rounded, reached = found.points.to(own.dtype), found.distance.isfinite()
            found = Perturbed(rounded, distance(rounded, own, norm).where(reached, torch.inf))
        found = bisect_to_boundary(forward, own, classes, found, norm=norm, box=box, below=height[rows])
        points[rows], distances[rows] = found.points, found.distance
    return Perturbed(points, distances)
