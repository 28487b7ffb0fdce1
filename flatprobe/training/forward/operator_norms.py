"""Operator norms of layers in training: tracked between steps by power iteration, or exact."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.points import dual_norm_maximizer
from flatprobe.graph.operators import Convolution, leading_input
from flatprobe.training.forward import Layer

Vectors = Float[Tensor, "vectors inputs"]

# Relative change of the norm in two iterations that counts as convergence, and the largest number of rounds.
_CONVERGED = 1e-6
_MOST = 1000


def iterate_power(layer: Layer, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """A v and its direction u, after power iterations v = A^T u / ||A^T u||, u = A v / ||A v||.

    ||A v|| is at most ||A|| and increases to it. Cost: 2 products of one sample per iteration. The estimate suits a
    penalty, which may lag behind the weights.

    Args:
        layer: A.
        u: (1, *image), shaped like A v.
        iterations: at least 1.

    Returns:
        A v, differentiable in the weight at constant v; and u, unchanged if A v is 0.
    """
    with torch.no_grad():
        v = dual_norm_maximizer(layer.adjoint(u), "l2")
        for _ in range(iterations - 1):
            v = dual_norm_maximizer(layer.adjoint(dual_norm_maximizer(layer.product(v), "l2")), "l2")
    image = layer.product(v)
    direction = dual_norm_maximizer(image.detach(), "l2")
    return image, torch.where(direction.any(), direction, u)


def find_exact_image(layer: Layer) -> Tensor:
    """A v for a unit v with ||A v|| = ||A||, from float64 on the CPU (`flatprobe.graph.operators.leading_input`)."""
    weight, own = layer.weight.detach(), layer.geometry
    op: Convolution | torch.Tensor = weight
    if own is not None:
        op = Convolution(weight, own.input_size, own.stride, own.padding, own.dilation, own.groups)
    return layer.product(leading_input(op).to(weight).view(1, *layer.operand_shape))


def converge_norm(layer: Layer, vectors: int, generator: torch.Generator) -> tuple[Float[Tensor, ""], Vectors]:
    """The norm and its vectors, from a random start until a round increases the norm by less than 1e-6 of it."""
    inputs = math.prod(layer.operand_shape)
    found = torch.randn((min(vectors, inputs), inputs), generator=generator, dtype=torch.float32, device="cpu").to(
        layer.weight
    )
    norm, found = search_krylov(layer, found, 1)
    for _ in range(_MOST):
        before = norm
        norm, found = search_krylov(layer, found, 2)
        if not bool(norm > before * (1 + _CONVERGED)):
            break
    return norm, found


def search_krylov(layer: Layer, vectors: Vectors, iterations: int) -> tuple[Float[Tensor, ""], Vectors]:
    """The largest ||A v|| over unit vectors of span{V, A^T A V, ..., (A^T A)^k V}, and the vectors that attain it.

    In this block Krylov space the best vector is far closer to the top one than in the last block alone, if many
    singular values are close to the largest, as those of a convolution are. The estimate suits a constraint, which must
    not miss. Cost: 2 k + (k + 1) products with the layer, each for as many samples as there are vectors.

    Args:
        layer: A.
        vectors: V, one per row; the last one is random and stays.
        iterations: k, at least 1.

    Returns:
        The norm, from below; and the best vectors, orthonormal, with the random one. The random vector finds a singular
        value that overtakes the others, whose space A may preserve.
    """
    blocks = [vectors]
    for _ in range(iterations):
        images = layer.adjoint(_images(layer, blocks[-1])).flatten(1)
        blocks.append(images / images.abs().amax().clamp_min(torch.finfo(images.dtype).tiny))
    basis = torch.linalg.qr(torch.cat(blocks).mT).Q.mT
    images = _images(layer, basis).flatten(1)
    # `eigh` refuses values that are not finite, which the loss reports with the step.
    values, turned = torch.linalg.eigh((images @ images.mT).nan_to_num())
    best = turned[:, len(turned) + 1 - len(vectors) :].mT @ basis
    return values[-1].clamp(min=0).sqrt(), torch.cat((best, vectors[-1:]))


def _images(layer: Layer, vectors: Vectors) -> Tensor:
    return layer.product(vectors.view(-1, *layer.operand_shape))
