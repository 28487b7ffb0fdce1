"""Gradients and Hessian products in named weights, summed over batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from flatprobe.network.weights import Weights, inner
from flatprobe.utils.plain_functions import twice_differentiable

# One function per batch: weights -> sum of the losses.
Losses = Iterable[Callable[[Weights], Tensor]]


def summed_gradient(losses: Losses, point: Mapping[str, Tensor], names: Sequence[str]) -> tuple[Tensor, Weights]:
    """The summed loss and its gradient in the named weights, in float64.

    Args:
        losses: one function of the weights per batch.
        point: all weights.
        names: the parameters of the gradient; nothing is computed for the others.

    Returns:
        The sum of the losses, a scalar, and the sum of their gradients.
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
    """Hessian products H v of the summed loss for directions v, in float64.

    H is the Hessian in the named weights. Reverse over reverse: the gradient of each batch is differentiated along v.
    In `python -m tests.benchmarks sharpness` it costs 1.9 gradients on an MLP, 3.0 on a CNN and 5.2 on a ResNet;
    forward over reverse (`torch.func.jvp` of `grad`) costs 3.0, 3.2 and 4.6. The directions share the graph of the
    gradient, so that further directions cost less. Attention runs on its plain kernel, since fused kernels have no
    second derivative.

    Args:
        losses: one function of the weights per batch.
        point: all weights.
        names: the parameters of the Hessian.
        directions: vectors over some of the names; a missing name counts as zero.
    """
    with torch.inference_mode(mode=False):
        total = [{name: torch.zeros_like(point[name], dtype=torch.float64) for name in names} for _ in directions]
    _each_product(losses, point, names, directions, lambda place, product: _add(total[place], product))
    return total


def summed_forms(
    losses: Losses, point: Mapping[str, Tensor], names: Sequence[str], directions: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, float]]:
    """Quadratic forms (v, H v), split by parameter tensor, with H as in `summed_products`.

    Args:
        losses: per batch, the sum of the losses as a function of the weights.
        point: all weights.
        names: the parameters in which H is taken; the others stay fixed.
        directions: vectors over these names.

    Returns:
        For each direction, name -> sum of v_j (H v)_j over the entries j of the parameter.
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
    """Pass the product of each batch with each direction to `take`."""
    with torch.inference_mode(mode=False), torch.enable_grad(), twice_differentiable():
        variables = _variables(point, names)
        for loss in losses:
            slopes = _gradient(loss({**point, **variables}), variables, again=True)
            for place, direction in enumerate(directions):
                last = place + 1 == len(directions)
                # A gradient without a graph is constant, since the loss is affine in these weights.
                curved = [name for name in slopes if slopes[name].requires_grad and name in direction]
                if curved:
                    product = torch.autograd.grad(
                        [slopes[name] for name in curved], list(variables.values()),
                        [direction[name].to(slopes[name]) for name in curved],
                        retain_graph=not last, materialize_grads=True,
                    )  # fmt: skip
                    take(place, dict(zip(variables, product, strict=True)))
                    del product
            del slopes  # Frees its graph before that of the next batch.


def _variables(point: Mapping[str, Tensor], names: Sequence[str]) -> Weights:
    """Leaf tensors that share memory with the point, if a graph can save them."""
    tensors = {name: point[name].detach() for name in names}
    return {name: (own.clone() if own.is_inference() else own).requires_grad_() for name, own in tensors.items()}


def _gradient(loss: Tensor, variables: Weights, *, again: bool) -> Weights:
    if not loss.requires_grad:  # The loss depends on no variable.
        return {name: torch.zeros_like(variable) for name, variable in variables.items()}
    grads = torch.autograd.grad(loss, list(variables.values()), create_graph=again, materialize_grads=True)
    return dict(zip(variables, grads, strict=True))


def _add(total: Weights, terms: Mapping[str, Tensor]) -> None:
    for name, sums in total.items():
        sums += terms[name]  # The addition converts to float64 without a copy of the term.
