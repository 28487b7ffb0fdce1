"""A layer's operator norm, followed from step to step in a Krylov space, on its device and in its dtype."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.training.passes import Layer
from flatprobe.training.passes.convolution import Geometry

Vectors = Float[Tensor, "vectors inputs"]

# Relative change of the norm in two iterations at which it counts as converged, and where that is given up.
_SETTLED = 1e-6
_MOST = 1000


def settled(layer: Layer, vectors: int, generator: torch.Generator) -> tuple[Float[Tensor, ""], Vectors]:
    """The norm, from random vectors until a round raises it by less than 1e-6 of itself, and the vectors."""
    inputs = math.prod(layer.input_shape[-1:] if layer.kind == "linear" else layer.input_shape[1:])
    found = torch.randn((min(vectors, inputs), inputs), generator=generator).to(layer.weight)
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
    many values are close to it, as those of a convolution are. 2 k + (k + 1) products with the layer, each for as many
    samples as there are vectors.

    Args:
        layer: A, linear or a convolution.
        vectors: V, one a row; the last one is random and stays.
        iterations: k, at least 1.

    Returns:
        The norm, from below; the best vectors, orthonormal, and the random one. Without that one, the place of a
        singular value that overtakes the others would not be found where A keeps the space of the others.
    """
    blocks = [vectors]
    for _ in range(iterations):
        images = _adjoint(layer, _apply(layer, blocks[-1]))
        blocks.append(images / images.abs().amax().clamp_min(torch.finfo(images.dtype).tiny))
    basis = torch.linalg.qr(torch.cat(blocks).mT).Q.mT
    images = _apply(layer, basis).flatten(1)
    # The decomposition refuses what is not finite; the loss reports it by the step.
    values, turned = torch.linalg.eigh((images @ images.mT).nan_to_num())
    best = turned[:, len(turned) + 1 - len(vectors) :].mT @ basis
    return values[-1].clamp(min=0).sqrt(), torch.cat((best, vectors[-1:]))


def _apply(layer: Layer, vectors: Vectors) -> Tensor:
    if layer.kind == "linear":
        return vectors @ layer.weight.mT
    geometry = _geometry(layer, len(vectors))
    return geometry.apply(vectors.reshape(geometry.inputs), layer.weight)


def _adjoint(layer: Layer, images: Tensor) -> Vectors:
    if layer.kind == "linear":
        return images @ layer.weight
    return _geometry(layer, len(images)).adjoint(images, layer.weight).flatten(1)


def _geometry(layer: Layer, samples: int) -> Geometry:
    own = layer.options["geometry"]
    assert isinstance(own, Geometry)
    return replace(own, inputs=torch.Size((samples, *own.inputs[1:])))
