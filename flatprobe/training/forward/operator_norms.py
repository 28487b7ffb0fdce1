"""A layer's operator norm in training, on its device and in its dtype: followed from step to step, or exact."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.points import dual_norm_maximizer
from flatprobe.graph.operators import Convolution, leading_input
from flatprobe.training.forward import Layer

Vectors = Float[Tensor, "vectors inputs"]

# Relative change of the norm in two iterations at which it counts as converged, and where that is given up.
_SETTLED = 1e-6
_MOST = 1000


def stretched(layer: Layer, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """A v and its direction u, after power iterations v = A^T u / ||A^T u||, u = A v / ||A v||.

    ||A v|| is at most ||A|| and rises to it. Two products of one sample an iteration: the cheapest there is, for a
    penalty, whose gradient needs v and which may be behind the weights a little.

    Args:
        layer: A.
        u: (1, *image) such as A v.
        iterations: at least 1.

    Returns:
        A v, differentiable in the weight while v is constant; u, which stays as it was where A v is 0.
    """
    with torch.no_grad():
        v = dual_norm_maximizer(layer.adjoint(u), "l2")
        for _ in range(iterations - 1):
            v = dual_norm_maximizer(layer.adjoint(dual_norm_maximizer(layer.product(v), "l2")), "l2")
    image = layer.product(v)
    direction = dual_norm_maximizer(image.detach(), "l2")
    return image, torch.where(direction.any(), direction, u)


def longest(layer: Layer) -> Tensor:
    """v with ||A v|| = ||A|| for a unit v, found in float64 on the CPU (`flatprobe.graph.operators.leading_input`)."""
    kernel, own = layer.weight.detach(), layer.geometry
    plain = (
        kernel
        if own is None
        else Convolution(kernel, tuple(own.inputs[1:]), own.stride, own.padding, own.dilation, own.groups)
    )
    return layer.product(leading_input(plain).to(kernel).view(1, *layer.operand_shape))


def settled(layer: Layer, vectors: int, generator: torch.Generator) -> tuple[Float[Tensor, ""], Vectors]:
    """The norm, from random vectors until a round raises it by less than 1e-6 of itself, and the vectors."""
    inputs = math.prod(layer.operand_shape)
    found = torch.randn((min(vectors, inputs), inputs), generator=generator, dtype=torch.float32, device="cpu").to(
        layer.weight
    )
    norm, found = risen(layer, found, 1)
    for _ in range(_MOST):
        before = norm
        norm, found = risen(layer, found, 2)
        if not bool(norm > before * (1 + _SETTLED)):
            break
    return norm, found


def risen(layer: Layer, vectors: Vectors, iterations: int) -> tuple[Float[Tensor, ""], Vectors]:
    """The largest ||A v|| among the unit vectors of span{V, A^T A V, ..., (A^T A)^k V}, and where A is largest in it.

    A block Krylov space, whose best vector comes far closer to the largest singular value than the last block's where
    many values are close to it, as those of a convolution are: for a constraint, which must not miss. 2 k + (k + 1)
    products with the layer, each for as many samples as there are vectors.

    Args:
        layer: A.
        vectors: V, one a row; the last one is random and stays.
        iterations: k, at least 1.

    Returns:
        The norm, from below; the best vectors, orthonormal, and the random one. Without that one, the place of a
        singular value that overtakes the others would not be found where A keeps the space of the others.
    """
    blocks = [vectors]
    for _ in range(iterations):
        images = layer.adjoint(_images(layer, blocks[-1])).flatten(1)
        blocks.append(images / images.abs().amax().clamp_min(torch.finfo(images.dtype).tiny))
    basis = torch.linalg.qr(torch.cat(blocks).mT).Q.mT
    images = _images(layer, basis).flatten(1)
    # The decomposition refuses what is not finite; the loss reports it by the step.
    values, turned = torch.linalg.eigh((images @ images.mT).nan_to_num())
    best = turned[:, len(turned) + 1 - len(vectors) :].mT @ basis
    return values[-1].clamp(min=0).sqrt(), torch.cat((best, vectors[-1:]))


def _images(layer: Layer, vectors: Vectors) -> Tensor:
    return layer.product(vectors.view(-1, *layer.operand_shape))
