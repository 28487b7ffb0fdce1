"""Which weights the constraints move."""

from collections.abc import Sequence

from torch import Tensor, nn

from flatprobe.training.passes import Layer


def trained_parameters(module: nn.Module) -> list[Tensor]:
    """Those that require a gradient: the others stay as they are in training. Tied ones are there once."""
    return [value for value in module.parameters() if value.requires_grad]


def trained_layers(module: nn.Module, layers: Sequence[Layer], name: str) -> list[Layer]:
    """The layers whose weight is trained, in order.

    Args:
        module: the network.
        layers: of one of its passes.
        name: of the constraint, for the message.

    Raises:
        ValueError: for a layer that is neither linear nor a convolution, or whose weight is computed from others.
    """
    own = {id(value) for value in module.parameters()}
    for layer in layers:
        if layer.kind == "unknown" or id(layer.weight) not in own:
            what = (
                "is neither a linear layer nor a convolution with the same zero padding on both sides"
                if layer.kind == "unknown"
                else "has a weight that is computed from other parameters"
            )
            msg = (
                f"the constraint {name!r} met the layer {layer.name!r}, which {what}; expected a network of linear "
                "layers and convolutions: replace the layer, freeze and remove its parametrization, or leave the "
                "constraint out"
            )
            raise ValueError(msg)
    return [layer for layer in layers if layer.weight.requires_grad]
