"""First-order estimates of the geometric margin from sampled slopes."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.functional.jacobian_norms import Forward, jacobians
from flatprobe.functional.jacobian_rows import precise_pieces
from flatprobe.functional.losses import functional_margin

Values = Float64[Tensor, " samples"]


def slopes(forward: Forward, points: Tensor, labels: Tensor, norm: str) -> tuple[Values, Tensor]:
    """||J||_2 and the dual norms of grad (z_y - z_j), at one point per sample.

    Cost: 1 forward and C backward passes.

    Returns:
        (samples,) and (samples, classes), float64; the second is 0 at j = y.
    """
    products, lengths, first = [], [], 0
    for matrix in precise_pieces(jacobians(forward, points)[1]):
        own = labels[first : first + len(matrix), None, None].expand(-1, 1, matrix.shape[2])
        differences = matrix.gather(1, own) - matrix
        products.append(matrix @ matrix.mT)
        lengths.append(differences.norm(dim=2) if norm == "l2" else differences.abs().sum(2))
        first += len(matrix)
    return torch.linalg.eigvalsh(torch.cat(products))[:, -1].clamp_min(0).sqrt(), torch.cat(lengths)


def sample_ball(
    inputs: Tensor, adversarial: Tensor, radius: Values, noise: Iterator[Tensor], norm: str, count: int
) -> Iterator[Tensor]:
    """`count` points per sample in the ball of `radius`.

    Half of the points, rounded up, are evenly spaced on the segment, both ends included. The others are uniform in the
    ball and made of standard normal noise. In linf they are its quantiles. In l2 they have its direction; the quantile
    of its squared length is uniform for every direction, and the d-th root is distributed as the lengths in a ball.
    """
    along = (count + 1) // 2
    for number in range(along):
        yield torch.lerp(inputs, adversarial, number / max(along - 1, 1))
    size = radius.to(inputs).view(-1, *(1,) * (inputs.ndim - 1))
    for _ in range(count - along):
        draw = next(noise)
        if norm == "linf":
            yield inputs + size * (2 * torch.special.ndtr(draw) - 1)
            continue
        flat = draw.flatten(1).double()
        half = torch.tensor(flat.shape[1] / 2, dtype=torch.float64, device=flat.device)
        uniform = torch.special.gammainc(half, flat.square().sum(1, keepdim=True) / 2)  # chi-squared's distribution
        length = uniform ** (1 / flat.shape[1])
        yield inputs + size * (flat / flat.norm(dim=1, keepdim=True) * length).to(draw).view_as(draw)


def pairwise(logits: Tensor, labels: Tensor, steepest: Tensor) -> Values:
    """min_{j != y} (z_y - z_j) / s_j, given the slopes s_j; 0 where misclassified.

    A class with slope 0 at all sampled points never overtakes; if all have slope 0, the estimate is inf.
    """
    leads = (logits.gather(1, labels[:, None]) - logits).double().clamp_min(0)
    ratios = torch.where(leads > 0, leads / steepest, 0.0)
    return ratios.scatter(1, labels[:, None], torch.inf).amin(1)


def jacobian_ratio(logits: Tensor, labels: Tensor, spectral: Tensor, norm: str, size: int) -> Values:
    """min_{j != y} (z_y - z_j) / (sqrt(2) ||J||_2); in linf divided by sqrt(d) too.

    S17's eqs 34 and 35 print o / ||J||_2, but v_ij has norm 2, not 1 (docs, Definitions).
    """
    factor = 2**0.5 if norm == "l2" else (2 * size) ** 0.5
    lead = functional_margin(logits, labels).double().clamp_min(0)
    return torch.where(lead > 0, lead / (factor * spectral), 0.0)


def estimate_near(
    forward: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    adversarial: Tensor,
    radius: Values,
    norm: str,
    count: int,
    noise: Iterator[Tensor],
) -> dict[str, Values]:
    """`gamma_1` and `gradient` from `count` points per ball; 0 for an infinite radius."""
    with torch.no_grad():
        logits = forward(inputs)
    known = radius.isfinite()
    radius = torch.where(known, radius, 0.0)
    spectral = torch.zeros_like(radius)
    steepest = torch.zeros(logits.shape, dtype=torch.float64, device=inputs.device)
    for point in sample_ball(inputs, adversarial, radius, noise, norm, count):
        jacobian, differences = slopes(forward, point, labels, norm)
        spectral, steepest = torch.maximum(spectral, jacobian), torch.maximum(steepest, differences)
    found = {
        "gamma_1": jacobian_ratio(logits, labels, spectral, norm, inputs[0].numel()),
        "gradient": pairwise(logits, labels, steepest),
    }
    return {name: torch.where(known, values, 0.0) for name, values in found.items()}
