"""The layers that a forward pass applies, seen from outside: linear maps and convolutions, and products with both."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

from flatprobe.graph.operators.geometry import Geometry


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution as one pass applied it: zhat = W x + b.

    Products are with samples side by side, on the weight's device and in its dtype; they are differentiable once, in
    the weight too.

    Attributes:
        name: of its weight among the module's parameters, without the last part (`"features.0"`); of a weight that is
            computed from some, the first one; of another weight, what torch calls the operation.
        kind: `"linear"`, `"convolution"`, or `"unknown"` for another product with a weight of two or more axes. What is
            linear in the inputs but no product of torch's, such as `(x * W).sum(1)`, is not seen.
        weight: W as it was applied.
        input_shape: of x; the samples first; () of an unknown layer.
        output_shape: of zhat; likewise.
        geometry: of a convolution.
        source: where the gradient with respect to x *through this layer alone* is found; None where x is no function
            of inputs or weights that need gradients.
        target: where the gradient with respect to zhat is found; None likewise.
        padded: whether the module pads x before W with other numbers than zeros: W is then only a part of the layer.
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
        """Of what W is multiplied by: a convolution's input of one sample, a matrix' vector of features."""
        return self.input_shape[-1:] if self.geometry is None else self.input_shape[1:]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of the product, likewise."""
        return tuple(self.weight.shape[:-1]) if self.geometry is None else self.output_shape[1:]

    def product(self, inputs: Tensor) -> Tensor:
        """W x: like zhat, from something like x."""
        return F.linear(inputs, self.weight) if self.geometry is None else self.geometry.convolve(inputs, self.weight)

    def adjoint(self, outputs: Tensor) -> Tensor:
        """W^T y: like x, from something like zhat."""
        if self.geometry is not None:
            return self.geometry.transpose(outputs, self.weight)
        return outputs @ self.weight if self.weight.ndim == 2 else outputs[..., None] * self.weight

    def gathered(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The gradient of <y, W x> in W, from something like x and something like zhat."""
        if self.geometry is not None:
            return self.geometry.gather(inputs, outputs)
        rows = outputs.reshape(-1, self.weight.shape[0] if self.weight.ndim == 2 else 1)
        return (rows.mT @ inputs.reshape(-1, inputs.shape[-1])).view(self.weight.shape)


def check_layers(layers: Iterable[Layer], asking: str, cure: str, *, rows: bool = False) -> tuple[Layer, ...]:
    """The layers, all of which are linear layers or convolutions.

    Args:
        layers: of a forward pass.
        asking: who wants them, for the message.
        cure: what to do, for the message.
        rows: whether the rows of W alone are wanted, whatever is done before W.

    Raises:
        ValueError: for a layer of unknown kind, or with another padding than by zeros, by its name; if there is none at
            all.
    """
    found = tuple(layers)
    for layer in found:
        if layer.kind == "unknown" or (layer.padded and not rows):
            msg = (
                f"{asking} met the layer {layer.name!r}, which is neither linear nor a convolution of one to three "
                "dimensions with the same zero padding on both sides; expected such layers alone, whose products and "
                f"adjoints are known: {cure}"
            )
            raise ValueError(msg)
    if not found:
        msg = f"{asking} met no linear layer and no convolution in the network's forward pass; expected one: {cure}"
        raise ValueError(msg)
    return found


def distinct(layers: Iterable[Layer]) -> dict[str, Layer]:
    """The layers by place, name and input shape; one that is applied again alike, with the same tensor, is there once.

    Returns:
        In the order in which they were applied.
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
    """What `ForwardPass.layer_gradients` says.

    Raises:
        ValueError: for a layer of unknown kind; if there is no other.
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
        if outputs is not None:  # of a layer that only another output depends on there is none
            inputs = layer.adjoint(outputs) if layer.source is None else at[id(layer.source)]
            gradients.append((layer, inputs, outputs))
    return gradients


_WHOLE = "take a penalty on the whole network instead, such as jacobian_frobenius"
