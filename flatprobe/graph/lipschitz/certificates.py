"""Certified lower bounds of the geometric margin from proven Lipschitz constants."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from flatprobe.graph import Graph, fold, trace
from flatprobe.graph.lipschitz.constants import propagate, step_constants
from flatprobe.graph.lipschitz.rounding import Affine, Arithmetic, arithmetic, rounding
from flatprobe.utils.arguments import one_of

Lower = Callable[
    [Float[Tensor, "samples classes"], Int64[Tensor, " samples"], Float64[Tensor, " samples"]],
    Float64[Tensor, " samples"],
]
Slopes = Callable[[Tensor], Tensor | float]
KINDS = ("spectral", "frobenius")

# The most pairs of classes whose row distances are all computed once; with more, those of the labels of a batch.
_TABLE = 2**21
# The most entries (samples, classes) at a time; temporary tensors take a few times as much.
_BLOCK = 2**21


def certified_margins(module: nn.Module, input_shape: Sequence[int], kind: str = "spectral") -> Lower:
    """Certified lower bounds gamma_3 (spectral) or gamma_4 (Frobenius) of the margin.

    The class of a sample provably does not change within the radius

        min_{j != y} (z_y - z_j) / (||W_y - W_j|| prod_{l < last} L_l)      if the last layer is linear,
        min_{j != y} (z_y - z_j) / (sqrt(2) prod_l L_l)                     otherwise,

    with L_l a proven Lipschitz constant of layer l in the l2 norm: an upper bound of the spectral or Frobenius norm of
    its operator at its input size, stride, padding, dilation and groups, with BatchNorm folded in. For an affine
    network the first form is the exact margin. A log-softmax at the end changes no difference of logits.

    The radius holds for the network as it is computed, in the precision and on the device of its weights, and for exact
    arithmetic. A bound on the rounding of the logits at the input and at the radius (`lipschitz.rounding`) is
    subtracted. In half precision, this bound leaves nothing for most networks.

    Cost: 1 trace and the norms of the layers; then C comparisons per sample and, from about 1,000 classes on, the
    distances of the row of its class from all other rows.

    The source prints the score sqrt(2) min (z_y - z_j) over the same product, which is twice too large in general: its
    proof assumes that sqrt(2) (delta_i - delta_j) has norm 1, and the norm is 2 (docs, Definitions).

    Args:
        module: a classifier in eval mode that takes one tensor; never changed.
        input_shape: the shape of one sample.
        kind: `"spectral"` (gamma_3) or `"frobenius"` (gamma_4).

    Returns:
        A function of the computed logits (samples, classes), the labels and the l2 norms of the inputs. It returns the
        radii (samples,) in float64: 0 for misclassified and tied samples, inf if no input changes the class.

    Raises:
        ValueError: for an unknown kind.
        ValueError: for a network that cannot be traced, or that computes in several precisions.
        ValueError: for a layer without a known constant, naming it.

    Source: Sokolic et al. (2017), section IV, eqs 36 and 37 [S17], corrected as above; the pairwise last layer after
    Tsuzuku, Sato and Sugiyama (2018), "Lipschitz-margin training".
    """
    one_of("kind", kind, KINDS)
    return bound_of(*certifiable_graph(module, input_shape), kind)


def certifiable_graph(module: nn.Module, input_shape: Sequence[int]) -> tuple[Graph, Arithmetic]:
    """The folded graph of a network, and the arithmetic of its weights.

    One logit z is followed by the linear layer that gives the logits (0, z) of its two classes.

    Raises:
        ValueError: for a network that cannot be traced, or that computes in several precisions.
        ValueError: for an output other than logits (batch, classes), or one logit per sample.
    """
    anchor = next(
        (p for p in module.parameters() if p.is_floating_point()), torch.empty(0, dtype=torch.float32, device="cpu")
    )
    traced = trace(module, input_shape)
    shape = traced.steps[-1].shape
    if shape in {(), (1,)}:
        traced = trace(_two_logits(module, anchor), input_shape)
    elif len(shape) != 1:
        msg = (
            f"{traced.network} returns a tensor of shape {tuple(shape)} per sample; expected logits (batch, classes): "
            "wrap it in a module that returns them alone, and leave the batch out of the shape"
        )
        raise ValueError(msg)
    check_precision(traced, anchor.dtype)
    return fold(traced), arithmetic(anchor.dtype, anchor.device)


def _two_logits(module: nn.Module, anchor: Tensor) -> nn.Module:
    """The network of the logits (0, z) for a network of one logit z."""
    last = nn.Linear(1, 2, bias=False, device=anchor.device, dtype=anchor.dtype)
    last.weight = nn.Parameter(torch.tensor([[0.0], [1.0]]).to(anchor), requires_grad=False)
    return nn.Sequential(module, nn.Flatten(0), nn.Unflatten(0, (-1, 1)), last).eval()


def bound_of(graph: Graph, used: Arithmetic, kind: str) -> Lower:
    """The function of `certified_margins` for a folded graph and the arithmetic of its network."""
    own = step_constants(graph, kind)
    rounded = rounding(graph, own, used)
    slopes = _slopes(graph, propagate(graph, own))
    return lambda logits, labels, norms: _lower(slopes, rounded, logits, labels, norms)


def check_precision(graph: Graph, dtype: torch.dtype) -> None:
    """Check that every step computes in the precision of the inputs.

    Raises:
        ValueError: for a step in another precision, naming it.
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
    """Function from labels y to Lipschitz constants of z_y - z_j for every j."""
    place = len(graph.steps) - 1
    if graph.steps[place].kind == "log_softmax":
        (place,) = graph.steps[place].sources
    last = graph.steps[place]
    if last.kind != "linear":
        constant = math.sqrt(2) * reached[place]
        return lambda _labels: constant
    weight = last.tensors["weight"]
    factor = (1 + 1e-12) * reached[last.sources[0]]
    if len(weight) ** 2 > _TABLE:
        return lambda labels: _distances(weight[labels], weight) * factor
    table = _distances(weight, weight) * factor
    return lambda labels: table[labels]


def _distances(first: Tensor, second: Tensor) -> Tensor:
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _lower(slopes: Slopes, rounded: Affine, logits: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
    """The largest r at which every lead exceeds its rounding."""
    size = max(1, _BLOCK // logits.shape[1])
    blocks = zip(*(torch.split(part, size) for part in (logits, labels, norms)), strict=True)
    return torch.cat([_of_block(slopes, rounded, *block) for block in blocks])


def _of_block(slopes: Slopes, rounded: Affine, logits: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
    logits = logits.double()
    steepness = slopes(labels.cpu())
    steepness = steepness.to(logits.device) if isinstance(steepness, Tensor) else torch.full_like(logits, steepness)
    # The error of a lead of one logit over another is at most sqrt(2) times the error of all logits, at both points.
    here = math.sqrt(2) * (rounded.constant + rounded.slope * norms[:, None])
    left = (logits.gather(1, labels[:, None]) - logits) * (1 - 1e-12) - 2 * here
    radii = left / (steepness + math.sqrt(2) * rounded.slope)
    radii = torch.where(left > 0, radii, 0.0)  # The lead is within the rounding, or the ratio is 0 / 0.
    return radii.scatter(1, labels[:, None], torch.inf).amin(1)
