"""Shared parts of attacks: lengths, boxes, leads, gradients, closest points."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from flatprobe.functional.losses import functional_margin, misclassified

Forward = Callable[[Tensor], Tensor]
Draw = Callable[[int], Tensor]  # index of the draw -> standard normal noise like the inputs, indexed by sample
Box = tuple[float, float] | None
Points = Float[Tensor, "samples ..."]
Logits = Float[Tensor, "samples classes"]
Labels = Int64[Tensor, " samples"]
Values = Float[Tensor, " samples"]
NORMS = ("l2", "linf")

# A point counts as adversarial only if another class leads by more than this number of rounding errors of the largest
# logit: in a batch of another size, whose sums have another order, the point could be classified correctly.
_ROUNDINGS = 16


@dataclass(frozen=True)
class Perturbed:
    """The closest adversarial point per sample.

    Attributes:
        points: (samples, ...) in the inputs' dtype; the input itself where no point was found.
        distance: (samples,) float64, the exact length of points - inputs as rounded; `inf` where no point was found.
    """

    points: Points
    distance: Float64[Tensor, " samples"]

    @staticmethod
    def none(inputs: Points) -> "Perturbed":
        """The start of a search: no point found."""
        return Perturbed(inputs, torch.full((len(inputs),), torch.inf, dtype=torch.float64, device=inputs.device))

    def closer(self, points: Points, distance: Tensor, adversarial: Tensor) -> "Perturbed":
        """The closer of these and the given adversarial points per sample."""
        better = adversarial & (distance < self.distance)
        return Perturbed(
            torch.where(per_sample(better, points), points, self.points), torch.where(better, distance, self.distance)
        )


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(samples,) as (samples, 1, ..., 1), for broadcasting."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def length(vectors: Points, norm: str) -> Values:
    """||v||_2 or ||v||_inf per sample."""
    flat = vectors.flatten(1)
    return flat.norm(dim=1) if norm == "l2" else flat.abs().amax(1)


def dual_length(vectors: Points, norm: str) -> Values:
    """The dual norm per sample: ||v||_2 for l2, ||v||_1 for linf."""
    flat = vectors.flatten(1)
    return flat.norm(dim=1) if norm == "l2" else flat.abs().sum(1)


def step_length(gap: Values, slope: Values) -> Values:
    """gap / slope, the step that closes the gap; 0 where the slope is 0."""
    return torch.where(slope > 0, gap / torch.where(slope > 0, slope, 1.0), 0.0)


def dual_norm_maximizer(gradient: Points, norm: str) -> Points:
    """argmax_{||v|| <= 1} v . gradient: the sign for linf, the unit vector for l2."""
    if norm == "linf":
        return gradient.sign()
    return gradient / per_sample(length(gradient, "l2"), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def divide_by_largest(vectors: Points) -> Points:
    """Vectors divided by their largest entry, so that squares do not underflow."""
    largest = length(vectors, "linf")
    return vectors / per_sample(torch.where(largest > 0, largest, 1), vectors)


def distance(points: Points, inputs: Points, norm: str) -> Float64[Tensor, " samples"]:
    """||x' - x|| of the points as they are rounded, with the difference in float64."""
    return length(points.double() - inputs.double(), norm)


def rough_distance(points: Points, inputs: Points, norm: str) -> Float64[Tensor, " samples"]:
    """||x' - x|| in the precision of the inputs, several times faster."""
    return length(points - inputs, norm).double()


def clip(points: Points, box: Box) -> Points:
    """The nearest points of the box, in l2 and in linf: each coordinate is clipped."""
    return points if box is None else points.clamp(*box)


def lead(logits: Logits, labels: Labels) -> Values:
    """max_{j != y} z_j - z_y, which is positive for an adversarial point."""
    return -functional_margin(logits, labels)


def log_odds(logits: Logits, labels: Labels) -> Values:
    """log((1 - p_y) / p_y) = log sum_{j != y} exp(z_j) - z_y.

    The cross-entropy is log(1 + exp(log odds)), so both gradients have one direction. This one does not underflow where
    the network is certain.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze(1)


def adversarial(logits: Logits, labels: Labels) -> Bool[Tensor, " samples"]:
    """True where another class leads by more than rounding."""
    rounding = _ROUNDINGS * torch.finfo(logits.dtype).eps * logits.abs().amax(1)
    return misclassified(logits, labels) & (lead(logits, labels) > rounding)


def _leaf(points: Points) -> Points:
    """The points as the start of a graph, without a copy; no graph can start at an inference tensor."""
    return (points.clone() if points.is_inference() else points.detach()).requires_grad_()


def with_gradient(
    forward: Forward, points: Points, labels: Labels, objective: Callable[[Tensor, Tensor], Tensor] = lead
) -> tuple[Logits, Points]:
    """Logits, and gradient of the objective per sample."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        variable = _leaf(points)
        logits = forward(variable)
        (gradient,) = torch.autograd.grad(objective(logits, labels).sum(), variable)
    return logits.detach(), gradient


def nearest_class(
    forward: Forward, points: Points, labels: Labels, norm: str, candidates: int
) -> tuple[Logits, Values, Points]:
    """The class with the nearest linearized boundary, among the largest logits.

    Cost: 1 forward pass, and 1 backward pass per candidate for all samples together.

    Returns:
        The logits; z_j - z_y and its gradient for that class.

    Raises:
        ValueError: if the logits do not depend differentiably on the inputs.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        variable = _leaf(points)
        logits = forward(variable)
        others = logits.detach().scatter(1, labels[:, None], -torch.inf)
        ranked = others.topk(min(candidates, logits.shape[1] - 1), 1).indices
        heights = logits.gather(1, ranked) - logits.gather(1, labels[:, None])
        least = torch.full_like(heights[:, 0], torch.inf)
        height, gradient = heights[:, 0].detach(), torch.zeros_like(variable)
        for k in range(ranked.shape[1]):
            (own,) = torch.autograd.grad(heights[:, k].sum(), variable, retain_graph=k + 1 < ranked.shape[1])
            slope = dual_length(own, norm)
            away = torch.where(slope > 0, heights[:, k].detach().abs() / slope, torch.inf)
            closer = away < least
            least, height = torch.where(closer, away, least), torch.where(closer, heights[:, k].detach(), height)
            gradient = torch.where(per_sample(closer, own), own, gradient)
    return logits.detach(), height, gradient.detach()
