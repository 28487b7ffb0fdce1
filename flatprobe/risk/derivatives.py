"""Sums over batches of a loss's derivatives with respect to named weights: gradients and Hessian products."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from flatprobe.network.weights import Weights, inner
from flatprobe.utils.plain_functions import twice_differentiable

# One batch each: weights -> the batch's summed loss.
Losses = Iterable[Callable[[Weights], Tensor]]


def summed_gradient(losses: Losses, point: Mapping[str, Tensor], names: Sequence[str]) -> tuple[Tensor, Weights]:
    """The loss summed over the batches and its gradient over the named weights, both in float64.

    Args:
        losses: one function of the weights a batch.
        point: all weights.
        names: those to differentiate by; nothing is computed for the others.

    Returns:
        The sum of the losses, a scalar, and of their gradients.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        variables = _variables(point, names)
        value = torch.zeros((), dtype=torch.float64, device=next(iter(variables.values())).device)
        total = {name: torch.zeros_like(variable, dtype=torch.float64) for name, variable in variables.items()}
        for loss in losses:
            batch = loss({**point, **variables})
            value += batch.detach().double()
            _add(total, _gradient(batch, variables, again=False))
    return value, total


def summed_products(
    losses: Losses, point: Mapping[str, Tensor], names: Sequence[str], directions: Sequence[Mapping[str, Tensor]]
) -> list[Weights]:
    """H v for each direction v, H the Hessian over the named weights of the loss summed over the batches, in float64.

    Reverse over reverse: each batch's gradient is differentiated along v. In `python -m tests.benchmarks sharpness` it
    costs 1.9 gradients on an MLP, 3.0 on a CNN and 5.2 on a ResNet, forward over reverse (`torch.func.jvp` of `grad`)
    3.0, 3.2 and 4.6; and the graph of the gradient is shared by the directions, so that further ones cost less.
    Attention runs on its plain kernel, since the fused ones have no second derivative.

    Args:
        losses: one function of the weights a batch.
        point: all weights.
        names: those to differentiate by.
        directions: over some of the names; one that a direction lacks counts as zero.

    Returns:
        One product a direction, over all the names.
    """
    with torch.inference_mode(mode=False):
        total = [{name: torch.zeros_like(point[name], dtype=torch.float64) for name in names} for _ in directions]
    _each_product(losses, point, names, directions, lambda place, product: _add(total[place], product))
    return total


def summed_forms(
    losses: Losses, point: Mapping[str, Tensor], names: Sequence[str], directions: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, float]]:
    """(v, H v), parameter by parameter, for each direction v: `summed_products` where the products are not kept.

    Args:
        losses: one function of the weights a batch.
        point: all weights.
        names: those to differentiate by.
        directions: over all of the names.

    Returns:
        For each direction, name -> sum over the name's entries of v_j (H v)_j.
    """
    total = [dict.fromkeys(names, 0.0) for _ in directions]

    def take(place: int, product: Weights) -> None:
        for name in names:
            total[place][name] += inner(directions[place][name], product[name])

    _each_product(losses, point, names, directions, take)
    return total


def _each_product(
    losses: Losses,
    point: Mapping[str, Tensor],
    names: Sequence[str],
    directions: Sequence[Mapping[str, Tensor]],
    take: Callable[[int, Weights], None],
) -> None:
    """Hand each batch's product with each direction on, with the direction's place."""
    with torch.inference_mode(mode=False), torch.enable_grad(), twice_differentiable():
        variables = _variables(point, names)
        for loss in losses:
            slopes = _gradient(loss({**point, **variables}), variables, again=True)
            for place, direction in enumerate(directions):
                last = place + 1 == len(directions)
                # A gradient without a graph is constant: the loss is affine in those weights.
                curved = [name for name in slopes if slopes[name].requires_grad and name in direction]
                if curved:
                    product = torch.autograd.grad(
                        [slopes[name] for name in curved], list(variables.values()),
                        [direction[name].to(slopes[name]) for name in curved],
                        retain_graph=not last, materialize_grads=True,
                    )  # fmt: skip
                    take(place, dict(zip(variables, product, strict=True)))
                    del product
            del slopes  # and its graph, before the next batch's


def _variables(point: Mapping[str, Tensor], names: Sequence[str]) -> Weights:
    """Leaves that share their numbers with the point; of an inference tensor, which no graph takes, a copy."""
    tensors = {name: point[name].detach() for name in names}
    return {name: (own.clone() if own.is_inference() else own).requires_grad_() for name, own in tensors.items()}


def _gradient(loss: Tensor, variables: Weights, *, again: bool) -> Weights:
    if not loss.requires_grad:  # none of the variables acts
        return {name: torch.zeros_like(variable) for name, variable in variables.items()}
    grads = torch.autograd.grad(loss, list(variables.values()), create_graph=again, materialize_grads=True)
    return dict(zip(variables, grads, strict=True))


def _add(total: Weights, terms: Mapping[str, Tensor]) -> None:
    for name, sums in total.items():
        sums += terms[name]  # each number is widened as it is added, without a copy of the term
