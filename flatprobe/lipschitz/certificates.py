"""Certified lower bounds of the geometric margin from proven Lipschitz constants."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.checks import one_of
from flatprobe.graph import folded, trace
from flatprobe.lipschitz.constants import propagated, step_constants
from flatprobe.lipschitz.rounding import Affine, rounding

Lower = Callable[
    [Float64[Tensor, "samples classes"], Int64[Tensor, " samples"], Float64[Tensor, " samples"]],
    Float64[Tensor, " samples"],
]
KINDS = ("spectral", "frobenius")


def certified_margins(module: nn.Module, input_shape: Sequence[int], kind: str = "spectral") -> Lower:
    """gamma_3 (spectral) and gamma_4 (Frobenius): radii within which the class provably does not change.

        min_{j != y} (z_y - z_j) / (||W_y - W_j|| prod_{l < last} L_l)      where the last layer is linear,
        min_{j != y} (z_y - z_j) / (sqrt(2) prod_l L_l)                     otherwise,

    with L_l a proven Lipschitz constant of layer l in the l2 norm: an upper bound of its operator's spectral or
    Frobenius norm at its real input size, stride, padding, dilation and groups, BatchNorm folded in. For an affine
    network the first form is the exact margin. The rounding of the logits in float64 is subtracted, so that the bound
    holds for the network in exact arithmetic and for the network computed in float64 alike. The network is traced once
    and its norms are computed once; each sample then costs C comparisons.

    S17 eqs 36 and 37 print the score sqrt(2) min (z_y - z_j) over the same product, which is twice too large in
    general: its proof takes sqrt(2) (delta_i - delta_j) to have norm 1, and it has norm 2 (SPEC section 3).

    Args:
        module: a classifier in eval mode that takes one tensor; never changed.
        input_shape: of one sample.
        kind: `"spectral"` (gamma_3) or `"frobenius"` (gamma_4).

    Returns:
        A function of the logits computed in float64 (samples, classes), the labels and the l2 norms of the inputs,
        which returns the radii (samples,), float64; 0 where misclassified or tied, inf where no input changes the
        class.

    Raises:
        ValueError: for an unknown kind, a network that cannot be traced, or a layer without a known constant (named).

    Source: S17 section IV, eqs 36 and 37, corrected as above; the pairwise last layer after Tsuzuku, Sato, Sugiyama
    2018, "Lipschitz-margin training".
    """
    one_of("kind", kind, KINDS)
    graph = folded(trace(module, input_shape))
    own = step_constants(graph, kind)
    reached, rounded = propagated(graph, own), rounding(graph, own)
    last = graph.steps[-1]
    slopes: Tensor | float = math.sqrt(2) * reached[-1]
    if last.kind == "linear":
        weight = last.tensors["weight"]
        distances = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")
        slopes = distances * (1 + 1e-12) * reached[last.sources[0]]
    return lambda logits, labels, norms: _lower(slopes, rounded, logits, labels, norms)


def _lower(slopes: Tensor | float, rounded: Affine, logits: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
    """The largest r for which no lead, less the rounding at the input and at a point r away, can vanish."""
    leads = logits.gather(1, labels[:, None]) - logits
    steepness = slopes.to(leads.device)[labels] if isinstance(slopes, Tensor) else torch.full_like(leads, slopes)
    # The lead of one logit over another is off by at most sqrt(2) times the error of all, here and there.
    here = math.sqrt(2) * (rounded.constant + rounded.slope * norms[:, None])
    left = leads * (1 - 1e-12) - 2 * here
    radii = left / (steepness + math.sqrt(2) * rounded.slope)
    radii = torch.where(left > 0, radii, 0.0)  # a lead lost in the rounding, or 0 / 0
    own = torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
    return radii.masked_fill(own, torch.inf).amin(1)
