"""Gradients in named weights, summed over batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.weights import Weights, pieces

# One function per batch: weights -> sum of the losses.
Losses = Iterable[Callable[[Weights], Tensor]]


def summed_gradient(losses: Losses, point: Mapping[str, Tensor], names: Sequence[str]) -> tuple[Tensor, Weights]:
    """The summed loss and its gradient in the named weights.

    Args:
        losses: one function of the weights per batch.
        point: all weights.
        names: the parameters of the gradient; nothing is computed for the others.

    Returns:
        The sum of the losses, a scalar in float64, and the sum of their gradients: in the type of the weights for one
        batch, in float64 for more.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        variables = variables_at(point, names)
        value = torch.zeros((), dtype=torch.float64, device=next(iter(variables.values())).device)
        total: Weights = {}
        for loss in losses:
            batch = loss({**point, **variables})
            value += batch.detach().double()
            add_terms(total, gradient_of(batch, variables, again=False))
    return value, total


def summed_gradients(point: Mapping[str, Tensor], names: Sequence[str]) -> Callable[[Losses], Weights]:
    """The function from losses to the gradient of `summed_gradient`, all at one point."""
    variables = variables_at(point, names)
    weights = {**point, **variables}

    def gradient(losses: Losses) -> Weights:
        total: Weights = {}
        with torch.inference_mode(mode=False), torch.enable_grad():
            for loss in losses:
                add_terms(total, gradient_of(loss(weights), variables, again=False))
        return total

    return gradient


def variables_at(point: Mapping[str, Tensor], names: Sequence[str]) -> Weights:
    """Leaf tensors that share memory with the point, if a graph can save them."""
    tensors = {name: point[name].detach() for name in names}
    return {name: (own.clone() if own.is_inference() else own).requires_grad_() for name, own in tensors.items()}


def gradient_of(loss: Tensor, variables: Weights, *, again: bool) -> Weights:
    """The gradient of a scalar, with a graph of its own if it is to be differentiated again."""
    if not loss.requires_grad:  # The loss depends on no variable.
        return {name: torch.zeros_like(variable) for name, variable in variables.items()}
    grads = torch.autograd.grad(loss, list(variables.values()), create_graph=again, materialize_grads=True)
    return dict(zip(variables, grads, strict=True))


def add_terms(total: Weights, terms: Weights) -> None:
    """Add the terms of a batch to a total, in float64 from the second batch on; each term is freed after it."""
    for name in list(terms):
        sums, term = total.get(name), terms.pop(name)
        if sums is None:
            total[name] = term
        elif sums.dtype == term.dtype:  # The terms of a first batch may share memory, so that they are not changed.
            total[name] = sums.to(torch.float64, copy=True).add_(term)
        else:
            sums += term  # The addition converts to float64 without a copy of the term.


def mean_of(total: Weights, count: int, like: Mapping[str, Tensor]) -> Weights:
    """The total over the count in the types of other weights; each sum is freed after its division."""
    return {name: total.pop(name).div(count).to(like[name]) for name in list(total)}


def precise_dot(first: Tensor, second: Tensor) -> Float64[Tensor, ""]:
    """Inner product sum_j a_j b_j, multiplied and summed in float64 on the device of the tensors."""
    return _sum([torch.dot(a.double(), b.double()) for a, b in pieces(first, second)])


def precise_square(vector: Tensor) -> Float64[Tensor, ""]:
    """Squared length sum_j a_j^2, as `precise_dot`."""
    doubles = (piece.double() for (piece,) in pieces(vector))
    return _sum([torch.dot(piece, piece) for piece in doubles])


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]
