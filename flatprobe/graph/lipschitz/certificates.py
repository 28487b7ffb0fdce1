"""Certified lower bounds of the geometric margin from proven Lipschitz constants."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from flatprobe.graph import Graph, folded, trace
from flatprobe.graph.lipschitz.constants import propagated, step_constants
from flatprobe.graph.lipschitz.rounding import Affine, arithmetic, rounding
from flatprobe.utils.arguments import one_of

Lower = Callable[
    [Float[Tensor, "samples classes"], Int64[Tensor, " samples"], Float64[Tensor, " samples"]],
    Float64[Tensor, " samples"],
]
Slopes = Callable[[Tensor], Tensor | float]
KINDS = ("spectral", "frobenius")

# Pairs of classes whose rows' distances are all computed once and held; beyond them, those of a batch's labels.
_TABLE = 2**21
# Entries (samples, classes) at a time; work beside them takes a few times as much.
_BLOCK = 2**21


def certified_margins(module: nn.Module, input_shape: Sequence[int], kind: str = "spectral") -> Lower:
    """gamma_3 (spectral) and gamma_4 (Frobenius): radii within which the class provably does not change.

        min_{j != y} (z_y - z_j) / (||W_y - W_j|| prod_{l < last} L_l)      where the last layer is linear,
        min_{j != y} (z_y - z_j) / (sqrt(2) prod_l L_l)                     otherwise,

    with L_l a proven Lipschitz constant of layer l in the l2 norm: an upper bound of its operator's spectral or
    Frobenius norm at its real input size, stride, padding, dilation and groups, BatchNorm folded in. For an affine
    network the first form is the exact margin. A log-softmax at the end changes no difference of logits.

    The radius is that of the network as it is computed, in the precision and on the device of its weights: what
    rounding may do to the logits, here and a radius away (`lipschitz.rounding`), is subtracted. It is that of the
    network in exact arithmetic too. In half precision the bound on the rounding leaves nothing of most networks.

    The network is traced once and its norms are computed once; each sample then costs C comparisons, and, from some
    1,000 classes on, the distances of its class's row from all others.

    S17 eqs 36 and 37 print the score sqrt(2) min (z_y - z_j) over the same product, which is twice too large in
    general: its proof takes sqrt(2) (delta_i - delta_j) to have norm 1, and it has norm 2 (SPEC section 3).

    Args:
        module: a classifier in eval mode that takes one tensor; never changed.
        input_shape: of one sample.
        kind: `"spectral"` (gamma_3) or `"frobenius"` (gamma_4).

    Returns:
        A function of the logits that the network computes (samples, classes), the labels and the l2 norms of the
        inputs, which returns the radii (samples,), float64; 0 where misclassified or tied, inf where no input changes
        the class.

    Raises:
        ValueError: for an unknown kind, a network that cannot be traced, in several precisions, or with a layer without
            a known constant (named).

    Source: S17 section IV, eqs 36 and 37, corrected as above; the pairwise last layer after Tsuzuku, Sato, Sugiyama
    2018, "Lipschitz-margin training".
    """
    one_of("kind", kind, KINDS)
    anchor = next(
        (p for p in module.parameters() if p.is_floating_point()), torch.empty(0, dtype=torch.float32, device="cpu")
    )
    traced = trace(module, input_shape)
    _check_precision(traced, anchor.dtype)
    graph = folded(traced)
    own = step_constants(graph, kind)
    rounded = rounding(graph, own, arithmetic(anchor.dtype, anchor.device))
    slopes = _slopes(graph, propagated(graph, own))
    return lambda logits, labels, norms: _lower(slopes, rounded, logits, labels, norms)


def _check_precision(graph: Graph, dtype: torch.dtype) -> None:
    """Every step is computed in the precision of the inputs, of which `rounding` knows the bound.

    Raises:
        ValueError: naming the first step that is not.
    """
    step = next((step for step in graph.steps if step.dtype is not None), None)
    if step is not None:
        where = f"the layer {step.layer!r}" if step.layer else "its own forward"
        msg = (
            f"{graph.network} applies {step.operation} in {where} in {step.dtype}, and takes its inputs in {dtype}; "
            "expected one precision, whose rounding is known: certify model.float()"
        )
        raise ValueError(msg)


def _slopes(graph: Graph, reached: list[float]) -> Slopes:
    """Labels y -> how fast z_y - z_j can change in the input, for every j: (samples, classes), or one for all."""
    place = len(graph.steps) - 1
    if graph.steps[place].kind == "log_softmax":
        (place,) = graph.steps[place].sources
    last = graph.steps[place]
    if last.kind != "linear":
        steepest = math.sqrt(2) * reached[place]
        return lambda _labels: steepest
    weight = last.tensors["weight"]
    factor = (1 + 1e-12) * reached[last.sources[0]]
    if len(weight) ** 2 > _TABLE:
        return lambda labels: _distances(weight[labels], weight) * factor
    table = _distances(weight, weight) * factor
    return lambda labels: table[labels]


def _distances(first: Tensor, second: Tensor) -> Tensor:
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _lower(slopes: Slopes, rounded: Affine, logits: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
    """The largest r for which no lead, less the rounding at the input and at a point r away, can vanish."""
    size = max(1, _BLOCK // logits.shape[1])
    blocks = zip(*(torch.split(part, size) for part in (logits, labels, norms)), strict=True)
    return torch.cat([_of_block(slopes, rounded, *block) for block in blocks])


def _of_block(slopes: Slopes, rounded: Affine, logits: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
    logits = logits.double()
    steepness = slopes(labels.cpu())
    steepness = steepness.to(logits.device) if isinstance(steepness, Tensor) else torch.full_like(logits, steepness)
    # The lead of one logit over another is off by at most sqrt(2) times the error of all, here and there.
    here = math.sqrt(2) * (rounded.constant + rounded.slope * norms[:, None])
    left = (logits.gather(1, labels[:, None]) - logits) * (1 - 1e-12) - 2 * here
    radii = left / (steepness + math.sqrt(2) * rounded.slope)
    radii = torch.where(left > 0, radii, 0.0)  # a lead lost in the rounding, or 0 / 0
    return radii.scatter(1, labels[:, None], torch.inf).amin(1)
