"""A layer as a linear operator in training: products with it and its adjoint, power iteration, its exact norm."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flatprobe.operators import Convolution, leading_input
from flatprobe.training.passes import Layer
from flatprobe.training.passes.convolution import Geometry


@dataclass(frozen=True)
class Operator:
    """A: x -> W x of one sample, on the weight's device and in its dtype.

    Attributes:
        weight: W, which A x is differentiable in.
        geometry: of a convolution of one sample; None for a matrix.
        input_shape: of x.
        output_shape: of A x.
    """

    weight: Tensor
    geometry: Geometry | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def apply(self, x: Tensor) -> Tensor:
        """A x."""
        return self.weight.mv(x) if self.geometry is None else self.geometry.apply(x, self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y."""
        return self.weight.mT.mv(y) if self.geometry is None else self.geometry.adjoint(y, self.weight)

    def stretched(self, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """A v and its direction u, after power iterations v = A^T u / ||A^T u||, u = A v / ||A v||.

        ||A v|| is at most ||A|| and rises to it. Two products an iteration.

        Args:
            u: like A x.
            iterations: at least 1.

        Returns:
            A v, differentiable in the weight while v is constant; u, which stays as it was where A v is 0.
        """
        with torch.no_grad():
            v = _unit(self.adjoint(u))
            for _ in range(iterations - 1):
                v = _unit(self.adjoint(_unit(self.apply(v))))
        image = self.apply(v)
        direction = _unit(image.detach())
        return image, torch.where(direction.any(), direction, u)

    def exact(self) -> Tensor:
        """v with ||A v|| = ||A||, by float64 on the CPU (`flatprobe.operators.leading_input`)."""
        kernel, own = self.weight.detach(), self.geometry
        plain = (
            kernel
            if own is None
            else Convolution(kernel, tuple(own.inputs[2:]), own.stride, own.padding, own.dilation, own.groups)
        )
        return leading_input(plain).to(kernel).view(self.input_shape)


def operators(layers: Iterable[Layer], asking: str) -> dict[str, Operator]:
    """The layers' operators by place, name and input shape; a layer that is applied twice alike is there once.

    Args:
        layers: of a forward pass, in order.
        asking: who wants them, for messages.

    Returns:
        In the order in which they were applied.

    Raises:
        ValueError: if a layer has no known operator, or there is none at all.
    """
    found: dict[tuple[object, ...], tuple[str, Operator]] = {}
    for layer in layers:
        own = _operator(layer, asking)
        key = (id(layer.weight), own.input_shape, own.geometry)
        place = f"{len(found)}.{layer.name}.{'x'.join(map(str, own.input_shape))}"
        found.setdefault(key, (place, own))
    if not found:
        msg = (
            f"{asking} found no layer in the network's forward pass; expected torch.nn.Linear or convolutions, or "
            "torch.nn.functional's: a product written with @ is not seen"
        )
        raise ValueError(msg)
    return dict(found.values())


def _operator(layer: Layer, asking: str) -> Operator:
    if layer.kind == "unknown":
        msg = (
            f"{asking} does not know the norm of the layer {layer.name!r}; expected linear layers, and convolutions "
            "with the same padding on both sides: take a penalty on the derivatives in the inputs"
        )
        raise ValueError(msg)
    if layer.kind == "linear":
        return Operator(layer.weight, None, layer.input_shape[-1:], layer.output_shape[-1:])
    inputs, outputs = ((1, *shape[1:]) for shape in (layer.input_shape, layer.output_shape))
    return Operator(layer.weight, replace(layer.options["geometry"], inputs=torch.Size(inputs)), inputs, outputs)


def _unit(vector: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector)
    return vector / length.clamp_min(torch.finfo(vector.dtype).tiny)
