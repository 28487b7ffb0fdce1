"""Direction laws: random directions in weight space, direction k a function of (seed, k) alone."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from flatprobe import rng
from flatprobe.checks import one_of
from flatprobe.weights import Weights, norm


def _isotropic(weights: Weights, noise: Weights) -> Weights:
    length = norm(noise)
    return {name: (xi.double() / length).to(weights[name]) for name, xi in noise.items()}


def _filter(weights: Weights, noise: Weights) -> Weights:
    """Rescale per slice along the first dimension: a linear layer's unit, a convolution's filter."""
    return {name: _rescaled(xi, weights[name], tuple(range(1, xi.ndim))) for name, xi in noise.items() if xi.ndim > 1}


def _layer(weights: Weights, noise: Weights) -> Weights:
    return {name: _rescaled(xi, weights[name], tuple(range(xi.ndim))) for name, xi in noise.items() if xi.ndim > 1}


def _adaptive(weights: Weights, noise: Weights) -> Weights:
    length = norm(noise)
    return {name: (weights[name].abs().double() * xi.double() / length).to(weights[name]) for name, xi in noise.items()}


def _rescaled(noise: Tensor, weights: Tensor, dims: tuple[int, ...]) -> Tensor:
    w_norm, xi_norm = (torch.linalg.vector_norm(t.double(), dim=dims, keepdim=True) for t in (weights, noise))
    rescaled: Tensor = noise * (w_norm / xi_norm)
    return rescaled.to(weights)


LAWS: dict[str, Callable[[Weights, Weights], Weights]] = {
    "isotropic": _isotropic,
    "filter": _filter,
    "layer": _layer,
    "adaptive": _adaptive,
}


def direction(weights: Mapping[str, Tensor], names: Sequence[str], law: str, seed: int, index: int) -> Weights:
    """Direction number `index` of a law, over the named parameters.

    With xi standard normal over the selection (each tensor drawn from (seed, index, its place in the selection)):

    - `isotropic`: xi / ||xi||, so that distances along it are distances in weight space (T3 eq. 16);
    - `filter`: each filter's part of xi rescaled to that filter's norm; 1-D parameters do not move (Li et al. 2018);
    - `layer`: the same with each tensor rescaled to its norm;
    - `adaptive`: |w_j| xi_j / ||xi|| (after Kwon et al. 2021): follows a rescaling of ReLU units exactly.

    Args:
        weights: where the directions start.
        names: the selected parameters, in order.
        law: one of the four.
        seed: which family of directions.
        index: which direction of the family.

    Returns:
        The direction over the names that move, in the weights' dtype, device and memory layout.

    Raises:
        ValueError: for an unknown law, or where nothing moves under it.
    """
    one_of("law", law, LAWS)
    selected = {name: weights[name] for name in names}
    noise = {
        name: torch.empty_like(value, dtype=torch.float32).copy_(
            rng.normal(value.shape, seed, "direction", index, place)
        )
        for place, (name, value) in enumerate(selected.items())
    }
    result = LAWS[law](selected, noise)
    if not any(bool(value.any()) for value in result.values()):
        msg = (
            f"under the law {law!r} none of the selected parameters moves ({', '.join(names)}): filter and layer "
            "leave 1-D parameters "
            'where they are, and all three relative laws zero weights; select a weight matrix or use law="isotropic"'
        )
        raise ValueError(msg)
    return result


def scale(weights: Mapping[str, Tensor], names: Sequence[str], law: str) -> float:
    """The distance along a direction of the law that moves the selected weights by about their own norm.

    ||w|| for `isotropic` (unit directions), 1 for `filter` and `layer` (whose directions are as long as w), sqrt(number
    of weights) for `adaptive` (whose directions are as long as w's root mean square); 1 for weights that are all zero.
    """
    if law in {"filter", "layer"}:
        return 1.0
    if law == "adaptive":
        return math.sqrt(sum(weights[name].numel() for name in names))
    return norm({name: weights[name] for name in names}) or 1.0
