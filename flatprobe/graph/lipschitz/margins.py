"""Certified lower ends of the geometric margin in either norm, of the kinds that know the network."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from flatprobe.graph.lipschitz.certificates import certified_margins

# (logits, labels, inputs) -> (samples,)
Bound = Callable[[Tensor, Tensor, Tensor], Tensor]


def certified_ends(
    module: nn.Module, inputs: Tensor, kinds: Sequence[str], norm: str, *, single: bool
) -> tuple[dict[str, Bound], dict[str, str]]:
    """`certified_margins` by kind, in l2 or linf; and why there are none, of the kinds without.

    Args:
        module: a classifier in eval mode; never changed.
        inputs: a batch, of which the shape is looked at.
        kinds: `"spectral"`, `"frobenius"`.
        norm: `"l2"` or `"linf"`: the l2 bound over sqrt(d), since ||v||_2 <= sqrt(d) ||v||_inf.
        single: whether the inputs are all that the network takes.

    Returns:
        Kind -> bound, and kind -> reason.
    """
    if not single:
        reason = (
            "certified lower ends are known for networks of one tensor, and the data hold several inputs a sample; "
            'estimates such as lower=("gradient",) are known for it'
        )
        return {}, dict.fromkeys(kinds, reason)
    found: dict[str, Bound] = {}
    missing: dict[str, str] = {}
    for kind in kinds:
        try:
            found[kind] = _certified(module, inputs, kind, norm)
        except ValueError as error:  # a layer without a constant, or what cannot be traced
            missing[kind] = str(error)
    return found, missing


def drowned(lower: Mapping[str, Tensor], upper: Iterable[Tensor], dtype: torch.dtype) -> dict[str, str]:
    """Why the certified ends are 0 for every sample, of the kinds of which they are.

    Args:
        lower: kind -> ends.
        upper: ends of attacks, 0 for samples that are wrong as they are.
        dtype: of the network.

    Returns:
        Kind -> reason; nothing where every sample is wrong.
    """
    if not any(bool((values > 0).any()) for values in upper):
        return {}
    reason = f"no lead of its logits is certain to outlast their rounding in {str(dtype).removeprefix('torch.')}"
    fix = "" if dtype == torch.float64 else ": measure model.double(), for the network in that precision"
    return {kind: reason + fix for kind, values in lower.items() if not bool((values > 0).any())}


def _certified(module: nn.Module, inputs: Tensor, kind: str, norm: str) -> Bound:
    bound = certified_margins(module, tuple(inputs.shape[1:]), kind)
    # The last factor outweighs the rounding of the division.
    factor = 1.0 if norm == "l2" else inputs[0].numel() ** -0.5 * (1 - 1e-15)
    return lambda logits, labels, points: factor * bound(logits, labels, points.double().flatten(1).norm(dim=1))
