"""Direction laws: random directions in weight space, direction k a function of (seed, k) alone."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from flatprobe.network.weights import Weights, norm
from flatprobe.utils import rng
from flatprobe.utils.arguments import one_of

# (weights, noise, ||noise|| over the selection) -> the direction's part in one parameter; None where it does not move.
Law = Callable[[Tensor, Tensor, float], Tensor | None]


def _isotropic(weights: Tensor, noise: Tensor, length: float) -> Tensor:
    return noise.double().div_(length).to(weights)


def _filter(weights: Tensor, noise: Tensor, _length: float) -> Tensor | None:
    """Rescale per slice along the first dimension: a linear layer's unit, a convolution's filter."""
    return _rescaled(noise, weights, tuple(range(1, noise.ndim)))


def _layer(weights: Tensor, noise: Tensor, _length: float) -> Tensor | None:
    return _rescaled(noise, weights, tuple(range(noise.ndim)))


def _adaptive(weights: Tensor, noise: Tensor, length: float) -> Tensor:
    return noise.double().mul_(weights.abs()).div_(length).to(weights)


def _rescaled(noise: Tensor, weights: Tensor, dims: tuple[int, ...]) -> Tensor | None:
    if noise.ndim < 2:
        return None
    w_norm, xi_norm = (torch.linalg.vector_norm(t.double(), dim=dims, keepdim=True) for t in (weights, noise))
    # A filter that is held whole has no noise.
    rescaled: Tensor = noise * (w_norm / xi_norm.clamp_min(torch.finfo(torch.float64).tiny))
    return rescaled.to(weights)


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
    """Direction number `index` of a law, over the named parameters.

    With xi standard normal over the selection (each tensor drawn from (seed, index, its place in the selection)):

    - `isotropic`: xi / ||xi||, so that distances along it are distances in weight space (T3 eq. 16);
    - `filter`: each filter's part of xi rescaled to that filter's norm; 1-D parameters do not move (Li et al. 2018);
    - `layer`: the same with each tensor rescaled to its norm;
    - `adaptive`: |w_j| xi_j / ||xi|| (after Kwon et al. 2021): follows a rescaling of ReLU units exactly.

    Under the last three, weights that are zero do not move, and a parameter that is zero throughout (a bias at its
    initial value) is left out like those of one dimension.

    Args:
        weights: where the directions start.
        names: the selected parameters, in order.
        law: one of the four.
        seed: which family of directions.
        index: which direction of the family.
        held: name -> mask of entries that are left out: xi is 0 there, and no norm counts them.

    Returns:
        The direction over the names that move, in the weights' dtype, device and memory layout.

    Raises:
        ValueError: for an unknown law, or where nothing moves under it.
    """
    one_of("law", law, LAWS)
    noise = {
        name: torch.empty_like(weights[name], dtype=torch.float32).copy_(
            rng.normal(weights[name].shape, seed, "direction", index, place)
        )
        for place, name in enumerate(names)
    }
    for name, mask in (held or {}).items():
        noise[name].masked_fill_(mask, 0.0)
    weights, length = _without(weights, names, held), norm(noise) or 1.0
    parts = {name: LAWS[law](weights[name], noise.pop(name), length) for name in names}  # each noise is given up
    result = {name: part for name, part in parts.items() if part is not None and bool(part.any())}
    if not result:
        msg = (
            f"under the law {law!r} none of the selected parameters moves ({', '.join(names)}): filter and layer "
            "leave 1-D parameters "
            'where they are, and all three relative laws zero weights; select a weight matrix or use law="isotropic"'
        )
        raise ValueError(msg)
    return result


def scale(
    weights: Mapping[str, Tensor], names: Sequence[str], law: str, held: Mapping[str, Tensor] | None = None
) -> float:
    """The distance along a direction of the law that moves the selected weights by about their own norm.

    ||w|| for `isotropic` (unit directions), 1 for `filter` and `layer` (whose directions are as long as w), sqrt(number
    of weights) for `adaptive` (whose directions are as long as w's root mean square); 1 for weights that are all zero.
    Entries that are held do not count.
    """
    if law in {"filter", "layer"}:
        return 1.0
    if law == "adaptive":
        count = sum(weights[name].numel() for name in names) - sum(int(mask.sum()) for mask in (held or {}).values())
        return math.sqrt(count) or 1.0
    return norm(_without(weights, names, held)) or 1.0


def _without(weights: Mapping[str, Tensor], names: Sequence[str], held: Mapping[str, Tensor] | None) -> Weights:
    held = held or {}
    return {name: weights[name].masked_fill(held[name], 0.0) if name in held else weights[name] for name in names}
