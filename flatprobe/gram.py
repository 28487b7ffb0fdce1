"""The rows of a Jacobian, by backward passes, and their inner products: what probes and penalties are made of."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from flatprobe.kernels import softmax_jacobian

Forward = Callable[[Tensor], Tensor]


def rows_of(logits: Float[Tensor, "samples classes"], derivative: Forward) -> list[Tensor]:
    """The rows of J = dz/dx, (samples, input dimension) each, by C backward passes.

    Args:
        logits: z.
        derivative: u -> J^T u, (samples, classes) -> like the inputs; where it keeps its graph, so do the rows.
    """
    units = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return [derivative(unit.expand_as(logits)).flatten(1) for unit in units]


def relative_rows(logits: Float[Tensor, "samples classes"], derivative: Forward) -> tuple[Tensor, list[Tensor]]:
    """The rows of J less the row of the sample's likeliest class, which is left out: C - 1 backward passes.

    A derivative of the softmax depends on these differences alone, since (diag(p) - p p^T) 1 = 0. Taken before the
    probabilities multiply them, they do not cancel where the network is certain.

    Args:
        logits: z.
        derivative: u -> J^T u, as in `rows_of`.

    Returns:
        The classes in the rows' order (samples, classes), of which the first is the likeliest and has no row; C - 1
        tensors (samples, input dimension).
    """
    classes = logits.shape[1]
    order = (logits.detach().argmax(1, keepdim=True) + torch.arange(classes, device=logits.device)) % classes
    top = torch.zeros_like(logits).scatter(1, order[:, :1], 1)
    others = [torch.zeros_like(logits).scatter(1, order[:, k : k + 1], 1) for k in range(1, classes)]
    return order, [derivative(other - top).flatten(1) for other in others]


def squared_frobenius(rows: list[Tensor], through: Tensor | None = None) -> Float[Tensor, " samples"]:
    """The sum of the rows' squares, sample by sample, in the rows' type; `through` as in `gram`."""
    if through is not None:
        return gram(rows, through).diagonal(dim1=1, dim2=2).sum(1)
    squares: list[Tensor] = [_Squares.apply(row.flatten(1)) for row in rows]  # type: ignore[no-untyped-call]
    return torch.stack(squares).sum(0)


class _Squares(torch.autograd.Function):
    """||v||^2 of each sample's v; torch's own takes six passes over v, back and forth, and this three."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return vectors.square().sum(1)

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> Tensor:
        (vectors,) = ctx.saved_tensors
        found: Tensor = (2 * by)[:, None] * vectors
        return found


def gram(rows: list[Tensor], through: Tensor | None = None) -> Float[Tensor, "samples rows rows"]:
    """The rows' inner products, sample by sample, in the rows' type.

    Args:
        rows: those of J; or with `through` those of A in J = A W.
        through: W, (features, input dimension). J J^T = A (W W^T) A^T then needs no row of J.
    """
    matrix = torch.stack(rows, 1)
    if through is None:
        return matrix @ matrix.mT
    products: Tensor = _Through.apply(matrix, through)[0]  # type: ignore[no-untyped-call]
    return products


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


def gram_of_softmax(
    logits: Float[Tensor, "samples classes"],
    order: Int64[Tensor, "samples classes"],
    products: Float[Tensor, "samples others others"],
) -> Float64[Tensor, "samples classes classes"]:
    """(dp/dx) (dp/dx)^T from the Gram matrix of `relative_rows`, the classes in their order, in float64."""
    jacobian = softmax_jacobian(logits.gather(1, order))[:, :, 1:]
    return jacobian @ products.double() @ jacobian.mT


def top_eigenvector(products: Float64[Tensor, "samples rows rows"]) -> Float64[Tensor, "samples rows"]:
    """The unit eigenvector of the largest eigenvalue, one of them where several share it; NaN of what is not finite."""
    products, bad = finite(products)
    vectors: Tensor = torch.linalg.eigh(products)[1]
    return vectors[:, :, -1].masked_fill(bad[:, None], torch.nan)


def finite(products: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices, zeros in place of those that are not finite, and which those are: eigh refuses NaN."""
    bad = ~products.isfinite().all(2).all(1)
    return products.masked_fill(bad[:, None, None], 0.0), bad
