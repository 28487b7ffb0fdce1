"""Weights that the constraints change."""

from collections.abc import Sequence

from torch import Tensor, nn

from flatprobe.training.forward import Layer
from flatprobe.training.forward.layers import check_layers


def trained_parameters(module: nn.Module) -> list[Tensor]:
    """The parameters that require a gradient, without repetition of tied ones."""
    return [value for value in module.parameters() if value.requires_grad]


def trained_layers(module: nn.Module, layers: Sequence[Layer], name: str, *, rows: bool = False) -> list[Layer]:
    """The layers whose weight is trained, in order.

    Args:
        module: the network.
        layers: of one of its passes.
        name: of the constraint, for the message.
        rows: True if the constraint uses the rows of the weights, and not the layers as operators.

    Raises:
        ValueError: for a layer that is neither linear nor a convolution, or no layer.
        ValueError: for a layer whose weight is computed from other parameters.
    """
    user = f"the constraint {name!r}"
    parameters = {id(value) for value in module.parameters()}
    for layer in check_layers(layers, user, "replace the layer, or leave the constraint out", rows=rows):
        if id(layer.weight) not in parameters:
            msg = (
                f"{user} met the layer {layer.name!r}, whose weight is computed from other parameters; expected "
                "weights that are parameters themselves, which a constraint can move: remove the parametrization "
                "(torch.nn.utils.parametrize.remove_parametrizations), or leave the constraint out"
            )
            raise ValueError(msg)
    return [layer for layer in layers if layer.weight.requires_grad]
