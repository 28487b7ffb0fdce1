"""Networks that take their inputs in by one linear layer: the Jacobian's inner products are formed behind it."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import Node

from flatprobe.functional.jacobian_rows import Forward, gram, squared_frobenius
from flatprobe.training.forward.forward_pass import ForwardPass
from flatprobe.training.forward.layers import Layer

Rows = Callable[[Forward], list[Tensor]]

# Steps of a graph that only rearrange a sample's numbers, so that inner products stay what they are. The digit tells
# torch's own from functions that are written in Python.
_REARRANGE = re.compile(r"(Alias|Clone|View|ReshapeAlias|UnsafeView|Squeeze|Unsqueeze|Transpose|Permute)Backward\d")
# Rows of J whose square is less than this many rounding errors of what it is for orthogonal rows of W, which is
# sum_j A_kj^2 ||W_j||^2, have lost too many digits.
_ROUNDINGS = 10000


def inner_products(passed: ForwardPass, of: Tensor, rows: Rows) -> Float[Tensor, "samples rows rows"]:
    """The inner products of rows of J, sample by sample, in the inputs' type.

    Where the inputs enter by one linear layer zhat = W x + b alone, J = A W with A the derivative in zhat, and
    J J^T = A (W W^T) A^T, which costs less where there are many rows. It is not taken where W makes A's rows so much
    shorter that the difference would be lost to rounding.

    Args:
        passed: a batch.
        of: a function of the inputs, such as the logits.
        rows: given u -> J^T u, the rows; given u -> A^T u, those of A.
    """
    found = _behind(passed, of, rows)
    return gram(rows(partial(passed.derivative, of))) if found is None else found


def squares(passed: ForwardPass, of: Tensor, rows: Rows) -> Float[Tensor, " samples"]:
    """The sum of the rows' squares, sample by sample: the trace of `inner_products`."""
    found = _behind(passed, of, rows)
    if found is None:
        return squared_frobenius(rows(partial(passed.derivative, of)))
    return found.diagonal(dim1=1, dim2=2).sum(1)


def entrance(passed: ForwardPass, of: Tensor) -> Layer | None:
    """The linear layer by which alone `of` depends on the inputs, if there is one and it pays to stop behind it."""
    points = passed.inputs
    for layer in passed.layers:
        if layer.kind != "linear" or layer.source is None or layer.target is None or layer.weight.ndim != 2:
            continue
        if layer.input_shape != (len(points), points.shape[1:].numel()) or not _pays(of, layer):
            continue
        if _rearranges(layer.source.node, points) and not _reaches(of, points, without=layer.source.node):
            return layer
    return None


def _behind(passed: ForwardPass, of: Tensor, rows: Rows) -> Tensor | None:
    layer = entrance(passed, of)
    if layer is None or torch.is_autocast_enabled(of.device.type) or _ROUNDINGS * torch.finfo(of.dtype).eps > 1:
        return None
    matrix = torch.stack(rows(partial(passed.derivative, of, at=layer.target)), 1).to(layer.weight)
    products: Tensor = _Through.apply(matrix, layer.weight)[0]  # type: ignore[no-untyped-call]
    with torch.no_grad():
        apart = matrix.square() @ layer.weight.square().sum(1)
        precise = products.diagonal(dim1=1, dim2=2) >= _ROUNDINGS * torch.finfo(matrix.dtype).eps * apart
    return products if bool(precise.all()) else None


def _pays(of: Tensor, layer: Layer) -> bool:
    """Whether there are fewer multiplications, with n rows in all, r a sample, d inputs and h outputs.

    Rows of J take n d h of them, and twice as many on the way back; W W^T and A (W W^T) take h^2 d + n h^2, and as many
    back, and the inner products n r h each time.
    """
    (outputs, inputs), rows = layer.weight.shape, of.shape[1]
    count = rows * len(of)
    return 2 * outputs**2 * (inputs + count) + 3 * count * rows * outputs < 3 * count * inputs * outputs


def _rearranges(node: Node, points: Tensor) -> bool:
    """Whether what comes out at this node are the inputs in another order."""
    while not _holds(node, points):
        following = node.next_functions[0][0] if _REARRANGE.fullmatch(node.name()) else None
        if following is None:
            return False
        node = following
    return True


def _reaches(of: Tensor, points: Tensor, *, without: Node) -> bool:
    """Whether `of` depends on the inputs on a way that does not pass that node."""
    seen, ahead = {without}, [of.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if _holds(node, points):
            return True
        seen.add(node)
        ahead.extend(following for following, _ in node.next_functions)
    return False


def _holds(node: Node, points: Tensor) -> bool:
    return getattr(node, "variable", None) is points


class _Through(torch.autograd.Function):
    """A (W W^T) A^T and A (W W^T), which the derivatives need; torch's own would form the latter, and W W^T, twice."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        images = matrix @ (weight @ weight.mT)
        ctx.save_for_backward(matrix, weight, images)
        return images @ matrix.mT, images

    @staticmethod
    def backward(ctx: Any, by_products: Tensor | None, by_images: Tensor | None) -> tuple[Tensor, Tensor]:
        matrix, weight, images = ctx.saved_tensors
        if by_products is None:
            by_products = matrix.new_zeros(len(matrix), matrix.shape[1], matrix.shape[1])
        by_matrix, before = (by_products + by_products.mT) @ images, by_products @ matrix
        if by_images is not None:
            by_matrix, before = by_matrix + by_images @ (weight @ weight.mT), before + by_images
        by_metric = matrix.flatten(0, 1).mT @ before.flatten(0, 1)
        return by_matrix, (by_metric + by_metric.mT) @ weight
