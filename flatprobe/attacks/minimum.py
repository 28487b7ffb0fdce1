"""The minimum-norm attacks under one signature: from samples to the closest adversarial points found."""

from collections.abc import Callable

import torch

from flatprobe.attacks.boundary_bisection import closed
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
    """min { ||x' - x|| : argmax f(x') != y }, approached from above by one attack (O20 eq. 8.1).

    The attack runs on the samples that are classified correctly, and its points are pulled onto the boundary along the
    segment to their sample (`closed`). No step size or decision of a sample depends on the others.

    Args:
        attack: a key of `MINIMUM_NORM`.
        forward: inputs -> logits, differentiable.
        inputs: x, floating, in the box if there is one.
        labels: y.
        norm: `"l2"` or `"linf"`, in which the distance is small and is reported.
        box: least and largest value that an input can take, or None for all of R^d.
        draw: k -> the k-th standard normal noise, like the inputs; only `log_barrier` draws.
        steps: of the attack; None for its own number.

    Returns:
        `Perturbed`: distance 0 at the sample itself where it is misclassified (a tie counts), `inf` where nothing was
        found; every other point was passed through the network as it is and is of another class.

    Raises:
        ValueError: for an unknown attack or norm, or fewer than 1 steps.
    """
    one_of("attack", attack, MINIMUM_NORM)
    one_of("norm", norm, NORMS)
    at_least(1, steps=steps)
    with torch.no_grad():
        logits = forward(inputs)
        height = lead(logits, labels)
        right = height < 0
    points = inputs.clone()
    distances = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    if bool(right.any()):
        own, classes = inputs[right], labels[right]
        asked = forward if logits.dtype == inputs.dtype else lambda points: forward(points.to(inputs.dtype))
        options = {} if steps is None else {"steps": steps}
        found = MINIMUM_NORM[attack](asked, own, classes, norm=norm, box=box, draw=lambda k: draw(k)[right], **options)
        if found.points.dtype != own.dtype:  # of a network in several precisions, which has seen them rounded
            rounded, reached = found.points.to(own.dtype), found.distance.isfinite()
            found = Perturbed(rounded, distance(rounded, own, norm).where(reached, torch.inf))
        found = closed(forward, own, classes, found, norm=norm, box=box, below=height[right])
        points[right], distances[right] = found.points, found.distance
    return Perturbed(points, distances)
