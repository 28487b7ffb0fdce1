"""Random directions in weight space, by normalization."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from flatprobe.network.weights import Weights, norm
from flatprobe.utils import rng
from flatprobe.utils.arguments import one_of

_TINY = torch.finfo(torch.float64).tiny
# The most numbers that are converted to float64 at once.
_PIECE = 2**17

# (weights, noise, ||noise|| over the selection) -> the direction in one parameter, in the memory of the noise; None if
# the parameter does not move.
Law = Callable[[Tensor, Tensor, float], Tensor | None]


def _isotropic(_weights: Tensor, noise: Tensor, length: float) -> Tensor:
    return noise.div_(length)


def _filter(weights: Tensor, noise: Tensor, _length: float) -> Tensor | None:
    """Rescaling per slice along the first dimension: per unit or per filter."""
    if noise.ndim < 2:
        return None
    # The noise of a filter is zero if all its entries are held.
    factors = _row_norms(weights) / _row_norms(noise).clamp_min(_TINY)
    return noise.mul_(factors.to(noise).view(-1, *[1] * (noise.ndim - 1)))


def _layer(weights: Tensor, noise: Tensor, _length: float) -> Tensor | None:
    if noise.ndim < 2:
        return None
    return noise.mul_(norm({"": weights}) / max(norm({"": noise}), _TINY))


def _adaptive(weights: Tensor, noise: Tensor, length: float) -> Tensor:
    return noise.mul_(weights.abs()).div_(length)


def _row_norms(value: Tensor) -> Tensor:
    """Norms along the first dimension in float64, by groups of rows, which save memory."""
    rows = max(1, _PIECE * len(value) // max(1, value.numel()))
    norms = [torch.linalg.vector_norm(part.flatten(1).double(), dim=1) for part in torch.split(value, rows)]
    return torch.cat(norms)


LAWS: dict[str, Law] = {
    "isotropic": _isotropic,
    "filter": _filter,
    "layer": _layer,
    "adaptive": _adaptive,
}


def direction(
    weights: Mapping[str, Tensor],
    names: Sequence[str],
    law: str,
    seed: int,
    index: int,
    held: Mapping[str, Tensor] | None = None,
) -> Weights:
    """Direction number `index` of a normalization, over the named parameters.

    With xi standard normal over the selection, each tensor drawn from (seed, index, its position in the selection):

    - `isotropic`: xi / ||xi||, so that distances along it are distances in weight space (Poggio et al. (2017), eq. 16
      [T3]);
    - `filter`: the part of xi in each filter, rescaled to the norm of the filter (Li et al. 2018);
    - `layer`: the part of xi in each tensor, rescaled to the norm of the tensor;
    - `adaptive`: |w_j| xi_j / ||xi|| (after Kwon et al. 2021), which follows a rescaling of ReLU units exactly.

    `filter` and `layer` do not move parameters of one dimension. Under `filter`, `layer` and `adaptive`, weights that
    are zero do not move, and a parameter that is all zero (a bias at its initial value) is left out.

    Args:
        weights: the start of the directions.
        names: the selected parameters, in order.
        law: the normalization, one of the four.
        seed: the family of directions.
        index: the number of the direction in the family.
        held: name -> mask of entries that do not move: xi is 0 there, and norms do not count them.

    Returns:
        The direction over the names that move, in the dtype, device and memory layout of the weights.

    Raises:
        ValueError: for an unknown normalization, or if no selected parameter moves.
    """
    one_of("law", law, LAWS)
    noise = {name: _noise(weights[name], seed, "direction", index, place) for place, name in enumerate(names)}
    for name, mask in (held or {}).items():
        noise[name].masked_fill_(mask, 0.0)
    weights, length = _mask_held(weights, names, held), norm(noise) or 1.0
    parts = {name: LAWS[law](weights[name], noise.pop(name), length) for name in names}  # `pop` frees each noise.
    result = {name: part.to(weights[name]) for name, part in parts.items() if part is not None and _moves(part)}
    if not result:
        msg = (
            f"under the law {law!r} none of the selected parameters moves ({', '.join(names)}): filter and layer do "
            "not move 1-D parameters, and filter, layer and adaptive do not move zero weights; select a weight matrix "
            'or use law="isotropic"'
        )
        raise ValueError(msg)
    return result


def scale(
    weights: Mapping[str, Tensor], names: Sequence[str], law: str, held: Mapping[str, Tensor] | None = None
) -> float:
    """Distance along a direction that moves the selected weights by about their norm.

    - `isotropic`: ||w||, since directions have length 1;
    - `filter` and `layer`: 1, since directions are about as long as w;
    - `adaptive`: sqrt(number of weights), since directions are as long as the root mean square of w;
    - 1 for weights that are all zero.

    Held entries do not count.
    """
    if law in {"filter", "layer"}:
        return 1.0
    if law == "adaptive":
        count = sum(weights[name].numel() for name in names) - sum(int(mask.sum()) for mask in (held or {}).values())
        return math.sqrt(count) or 1.0
    return norm(_mask_held(weights, names, held)) or 1.0


def _noise(weights: Tensor, *key: rng.Key) -> Tensor:
    """Standard normal noise on the device and in the memory layout of the weights, in float32 or float64."""
    noise = rng.normal(weights.shape, *key, device=weights.device)
    dtype = torch.promote_types(weights.dtype, torch.float32)
    return noise.to(dtype) if weights.is_contiguous() else torch.empty_like(weights, dtype=dtype).copy_(noise)


def _moves(direction: Tensor) -> bool:
    """True unless all entries are zero."""
    first = (0,) * direction.ndim  # Usually tells without a pass over the entries.
    return direction.numel() > 0 and (bool(direction[first]) or bool(torch.stack(direction.aminmax()).any()))


def _mask_held(weights: Mapping[str, Tensor], names: Sequence[str], held: Mapping[str, Tensor] | None) -> Weights:
    held = held or {}
    return {name: weights[name].masked_fill(held[name], 0.0) if name in held else weights[name] for name in names}
