"""Layers of a forward pass: linear maps and convolutions as operators, and their gradients."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

from flatprobe.graph.operators.geometry import Geometry


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution in one pass: zhat = W x + b.

    Products take samples first, on the weight's device and in its dtype. They are differentiable once, also in the
    weight.

    Attributes:
        name: the parameter's name without its last part (`"features.0"`); of a computed weight, the first parameter's;
            of another weight, torch's name of the operation.
        kind: `"linear"`, `"convolution"`, or `"unknown"` for another product with a weight of two or more axes. Linear
            maps without a product of torch's, such as `(x * W).sum(1)`, are not recorded.
        weight: W.
        input_shape: of x, samples first; () of an unknown layer.
        output_shape: of zhat, samples first; () of an unknown layer.
        geometry: of a convolution.
        source: the place in the graph of the gradient in x *through this layer alone*; None if x needs no gradient.
        target: the place in the graph of the gradient in zhat; None if zhat needs no gradient.
        padded: True if the module pads x with other values than zeros before W, which is then only a part of the layer.
    """

    name: str
    kind: str
    weight: Tensor = field(repr=False)
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    geometry: Geometry | None
    source: GradientEdge | None = field(repr=False)
    target: GradientEdge | None = field(repr=False)
    padded: bool = False

    @property
    def operand_shape(self) -> tuple[int, ...]:
        """The shape of the operand of W: one sample's input of a convolution, a vector of features of a matrix."""
        return self.input_shape[-1:] if self.geometry is None else self.input_shape[1:]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of W times an operand."""
        return tuple(self.weight.shape[:-1]) if self.geometry is None else self.output_shape[1:]

    def product(self, inputs: Tensor) -> Tensor:
        """W x, shaped like zhat."""
        return F.linear(inputs, self.weight) if self.geometry is None else self.geometry.convolve(inputs, self.weight)

    def adjoint(self, outputs: Tensor) -> Tensor:
        """W^T y, shaped like x."""
        if self.geometry is not None:
            return self.geometry.transpose(outputs, self.weight)
        return outputs @ self.weight if self.weight.ndim == 2 else outputs[..., None] * self.weight

    def gathered(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The gradient of <y, W x> in W."""
        if self.geometry is not None:
            return self.geometry.gather(inputs, outputs)
        rows = outputs.reshape(-1, self.weight.shape[0] if self.weight.ndim == 2 else 1)
        return (rows.mT @ inputs.reshape(-1, inputs.shape[-1])).view(self.weight.shape)


def check_layers(layers: Iterable[Layer], user: str, fix: str, *, rows: bool = False) -> tuple[Layer, ...]:
    """The layers, checked to be linear layers and convolutions.

    Args:
        layers: of a forward pass.
        user: the penalty or constraint that uses the layers, for the message.
        fix: for the message.
        rows: True if only the rows of W are used, so that padding does not matter.

    Raises:
        ValueError: for a layer of unknown kind, or with another padding than zeros.
        ValueError: if there is no layer.
    """
    found = tuple(layers)
    for layer in found:
        if layer.kind == "unknown" or (layer.padded and not rows):
            msg = (
                f"{user} met the layer {layer.name!r}, which is neither linear nor a convolution of one to three "
                "dimensions with the same zero padding on both sides; expected such layers alone, whose products and "
                f"adjoints are known: {fix}"
            )
            raise ValueError(msg)
    if not found:
        msg = f"{user} met no linear layer and no convolution in the network's forward pass; expected one: {fix}"
        raise ValueError(msg)
    return found


def distinct(layers: Iterable[Layer]) -> dict[str, Layer]:
    """The layers by place, name and input shape, without repeated applications of one weight to one shape.

    Returns:
        The layers in the order of the pass.
    """
    found: dict[tuple[object, ...], tuple[str, Layer]] = {}
    for layer in layers:
        key = (id(layer.weight), layer.operand_shape, layer.geometry)
        place = f"{len(found)}.{layer.name}.{'x'.join(map(str, layer.operand_shape))}"
        found.setdefault(key, (place, layer))
    return dict(found.values())


def gradients_at(
    layers: Iterable[Layer], of: Tensor, along: Tensor | None, *, create_graph: bool
) -> list[tuple[Layer, Tensor, Tensor]]:
    """The gradients of `ForwardPass.layer_gradients`.

    Raises:
        ValueError: for a layer of unknown kind, or no layer.
    """
    passed = (layer for layer in layers if layer.kind == "unknown" or layer.target is not None)
    reached = check_layers(passed, "a gradient layer by layer", _WHOLE)
    edges = [edge for layer in reached for edge in (layer.target, layer.source) if edge is not None]
    along = torch.ones_like(of) if along is None else along
    values = torch.autograd.grad(of, edges, along, create_graph=create_graph, retain_graph=True, allow_unused=True)
    at = dict(zip(map(id, edges), values, strict=True))
    gradients = []
    for layer in reached:
        outputs = at[id(layer.target)]
        if outputs is not None:  # None: only another output depends on the layer.
            inputs = layer.adjoint(outputs) if layer.source is None else at[id(layer.source)]
            gradients.append((layer, inputs, outputs))
    return gradients


_WHOLE = "take a penalty on the whole network instead, such as jacobian_frobenius"
