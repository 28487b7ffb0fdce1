"""Rows of the input Jacobian by backward passes, and their inner products."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from flatprobe.functional.losses import softmax_jacobian

Forward = Callable[[Tensor], Tensor]

# Bytes of the rows of some samples that are made float64 at once. They fit into a processor's cache; pieces of 0.5 to
# 4 MB take equal time.
_PIECE = 2**21


def rows_of(logits: Float[Tensor, "samples classes"], derivative: Forward) -> list[Tensor]:
    """Rows of J = dz/dx, (samples, input dimension) each, by C backward passes.

    Args:
        logits: z.
        derivative: the vjp u -> J^T u, (samples, classes) -> like the inputs; the rows keep the graph if it does.
    """
    return list(each_row(logits, derivative))


def each_row(logits: Float[Tensor, "samples classes"], derivative: Forward) -> Iterator[Tensor]:
    """`rows_of`, one row at a time, since many classes do not fit into memory."""
    for k in range(logits.shape[1]):
        unit = torch.zeros_like(logits[0])
        unit[k] = 1
        yield derivative(unit.expand_as(logits)).flatten(1)


def likeliest_first(logits: Float[Tensor, "samples classes"]) -> Int64[Tensor, "samples classes"]:
    """The classes per sample, rotated so that the likeliest one is first."""
    classes = logits.shape[1]
    return (logits.detach().argmax(1, keepdim=True) + torch.arange(classes, device=logits.device)) % classes


def relative_rows(logits: Float[Tensor, "samples classes"], derivative: Forward) -> list[Tensor]:
    """Rows of J less the row of the likeliest class, by C - 1 backward passes.

    A derivative of the softmax depends on these differences alone, since (diag(p) - p p^T) 1 = 0. Differences taken
    before the multiplication by probabilities do not cancel where the network is certain.

    Args:
        logits: z.
        derivative: the vjp u -> J^T u, as in `rows_of`.

    Returns:
        C - 1 tensors (samples, input dimension), in the order of `likeliest_first` without its first class.
    """
    return list(each_relative_row(logits, derivative))


def each_relative_row(logits: Float[Tensor, "samples classes"], derivative: Forward) -> Iterator[Tensor]:
    """`relative_rows`, one row at a time."""
    order = likeliest_first(logits)
    top = torch.zeros_like(logits).scatter(1, order[:, :1], 1)
    for k in range(1, logits.shape[1]):
        yield derivative(torch.zeros_like(logits).scatter(1, order[:, k : k + 1], 1) - top).flatten(1)


def squared_frobenius(rows: list[Tensor]) -> Float[Tensor, " samples"]:
    """The sum of the squared rows per sample, in the type of the rows."""
    squares: list[Tensor] = [_Squares.apply(row.flatten(1)) for row in rows]  # type: ignore[no-untyped-call]
    return torch.stack(squares).sum(0)


class _Squares(torch.autograd.Function):
    """||v||^2 per sample, in three passes over v, where torch needs six."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return vectors.square().sum(1)

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> Tensor:
        (vectors,) = ctx.saved_tensors
        found: Tensor = (2 * by)[:, None] * vectors
        return found


def gram(rows: list[Tensor]) -> Float[Tensor, "samples rows rows"]:
    """Inner products of the rows per sample, in the type of the rows."""
    matrix = torch.stack(rows, 1)
    return matrix @ matrix.mT


def stacked(rows: Iterator[Tensor], count: int, inputs: Tensor) -> Float[Tensor, "samples rows dimension"]:
    """`count` rows in one tensor, each of which is freed before the next one is computed."""
    flat = inputs.flatten(1)
    matrix = flat.new_empty(len(flat), count, flat.shape[1])
    for k, row in enumerate(rows):
        matrix[:, k] = row
    return matrix


def precise_pieces(
    matrix: Float[Tensor, "samples rows dimension"],
) -> Iterator[Float64[Tensor, "piece rows dimension"]]:
    """The matrices in float64, a few samples at a time, since float64 copies of all would take most of the memory."""
    together = max(1, _PIECE // (8 * max(1, matrix[0].numel())))
    return (piece.double() for piece in torch.split(matrix, together))


def precise_gram(matrix: Float[Tensor, "samples rows dimension"]) -> Float64[Tensor, "samples rows rows"]:
    """Inner products of the rows per sample, multiplied and summed in float64."""
    return torch.cat([piece @ piece.mT for piece in precise_pieces(matrix)])


def gram_of_softmax(
    logits: Float[Tensor, "samples classes"],
    products: Float[Tensor, "samples others others"],
) -> Float64[Tensor, "samples classes classes"]:
    """(dp/dx) (dp/dx)^T in float64 from the Gram matrix of `relative_rows`."""
    jacobian = softmax_jacobian(logits.gather(1, likeliest_first(logits)))[:, :, 1:]
    return jacobian @ products.double() @ jacobian.mT


def top_eigenvector(products: Float64[Tensor, "samples rows rows"]) -> Float64[Tensor, "samples rows"]:
    """A unit eigenvector of the largest eigenvalue; NaN for non-finite matrices."""
    products, bad = finite(products)
    vectors: Tensor = torch.linalg.eigh(products)[1]
    return vectors[:, :, -1].masked_fill(bad[:, None], torch.nan)


def finite(products: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices with 0 in place of non-finite ones, which eigh refuses, and their mask."""
    bad = ~products.isfinite().all(2).all(1)
    return products.masked_fill(bad[:, None, None], 0.0), bad
