"""Certified lower bounds of the geometric margin in l2 or linf, by kind."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn

from flatprobe.graph import Graph
from flatprobe.graph.lipschitz.certificates import bound_of, certifiable_graph
from flatprobe.graph.lipschitz.intervals import intervals_of
from flatprobe.graph.lipschitz.rounding import Arithmetic

# (logits, labels, inputs) -> (samples,)
Bound = Callable[[Tensor, Tensor, Tensor], Tensor]


def certified_bounds(
    module: nn.Module, inputs: Tensor, kinds: Sequence[str], norm: str, *, single: bool
) -> tuple[dict[str, Bound], dict[str, str]]:
    """Certified lower bounds by kind, and the reason for each kind without one.

    Args:
        module: a classifier in eval mode; never changed.
        inputs: a batch; only its shape is read.
        kinds: `"spectral"`, `"frobenius"`, or in linf `"interval"` for `interval_margins`.
        norm: `"l2"`, or `"linf"` for the l2 bound over sqrt(d), since ||v||_2 <= sqrt(d) ||v||_inf.
        single: True if the network takes these inputs alone.

    Returns:
        Kind -> bound, and kind -> reason.
    """
    if not single:
        reason = (
            "certified lower bounds exist for networks of one tensor, and the data hold several inputs per sample; "
            'lower=("gradient",) gives an estimate'
        )
        return {}, dict.fromkeys(kinds, reason)
    found: dict[str, Bound] = {}
    missing: dict[str, str] = {}
    graph = cache(partial(certifiable_graph, module, tuple(inputs.shape[1:])))  # one trace for all kinds
    for kind in kinds:
        try:
            found[kind] = _certified_bound(*graph(), inputs, kind, norm)
        except ValueError as error:  # A layer has no constant, or the trace fails.
            missing[kind] = str(error)
    return found, missing


def explain_zero_bounds(lower: Mapping[str, Tensor], upper: Iterable[Tensor], dtype: torch.dtype) -> dict[str, str]:
    """Reasons for certified lower bounds that are 0 for every sample, by kind.

    Args:
        lower: kind -> lower bounds.
        upper: upper bounds of attacks, 0 for misclassified samples.
        dtype: the precision of the network.

    Returns:
        Kind -> reason; empty if every sample is misclassified.
    """
    if not any(bool((values > 0).any()) for values in upper):
        return {}
    reason = f"no lead of a logit exceeds the bound on its rounding in {str(dtype).removeprefix('torch.')}"
    fix = "" if dtype == torch.float64 else ": measure model.double(), the network in that precision"
    return {kind: reason + fix for kind, values in lower.items() if not bool((values > 0).any())}


def _certified_bound(graph: Graph, used: Arithmetic, inputs: Tensor, kind: str, norm: str) -> Bound:
    if kind == "interval":
        radii = intervals_of(graph, used)
        return lambda _logits, labels, points: radii(points, labels)
    bound = bound_of(graph, used, kind)
    # The last factor outweighs the rounding of the division.
    factor = 1.0 if norm == "l2" else inputs[0].numel() ** -0.5 * (1 - 1e-15)
    return lambda logits, labels, points: factor * bound(logits, labels, points.double().flatten(1).norm(dim=1))
