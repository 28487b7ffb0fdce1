"""Adversarial points that float64 agrees with, so that they can stand beside a certificate."""

import torch

from flatprobe.attacks.points import Box, Forward, Labels, Perturbed, Points, adversarial, boxed, distance

# Lengthenings tried, 1 + 2^(k - TRIES): from a rounding error of float32 to half as long again.
TRIES = 24


def agreed(
    forward: Forward, exact: Forward, inputs: Points, labels: Labels, found: Perturbed, *, norm: str, box: Box
) -> Perturbed:
    """The points found, moved outwards by as little as it takes for the network in float64 to change its class too.

    The logits of a network in single precision are off by rounding, so that a point on its boundary may lie on the
    right side of the boundary of the function that the weights define, and of what is certified for it.

    Args:
        forward: inputs -> logits in the network's precision.
        exact: inputs -> logits in float64.
        inputs: x.
        labels: y.
        found: what an attack found.
        norm: in which the distance is reported.
        box: None, or what the points are kept in.

    Returns:
        Points of another class in both precisions, passed through both as they are rounded; none where none of the
        lengthenings has one.
    """
    with torch.no_grad():
        both = adversarial(exact(found.points.double()), labels) & found.distance.isfinite()
        result = Perturbed.none(inputs).closer(found.points, found.distance, both)
        for k in range(TRIES):
            left = found.distance.isfinite() & result.distance.isinf()
            if not bool(left.any()):
                break
            points = boxed(inputs + (1 + 2.0 ** (k - TRIES)) * (found.points - inputs), box)
            both = adversarial(forward(points), labels) & adversarial(exact(points.double()), labels)
            result = result.closer(points, distance(points, inputs, norm), both & left)
    return result
