"""A nest of `nn.Sequential` taken apart into the layers that it applies one after the other."""

from torch import Tensor, nn
from torch.nn.modules import module as calls

Layers = list[tuple[str, nn.Module]]


def layers_of(module: nn.Module, prefix: str = "") -> Layers | None:
    """The named layers that a nest of plain `nn.Sequential` applies one after the other; None for any other."""
    if type(module).forward is not nn.Sequential.forward or any(map(_hooked, module.modules())):
        return None
    if calls._global_forward_hooks or calls._global_forward_pre_hooks:  # noqa: SLF001 - torch has no public way to ask
        return None
    layers: Layers = []
    for name, child in module._modules.items():  # noqa: SLF001 - named_children() leaves out a layer's second use
        if child is not None:
            nested = layers_of(child, f"{prefix}{name}.")
            layers.extend(nested if nested is not None else [(prefix + name, child)])
    return layers


def _hooked(layer: nn.Module) -> bool:
    hooks = layer._forward_hooks or layer._forward_pre_hooks  # noqa: SLF001 - torch has no public way to ask
    return bool(hooks) or "forward" in vars(layer)  # one that was replaced


def affine_in_inputs(layer: nn.Module) -> bool:
    """Whether a layer without parameters is known to be affine in its inputs."""
    return isinstance(layer, nn.Flatten | nn.Identity) or getattr(layer, "affine_in_inputs", False)


def tensors_of(layer: nn.Module) -> list[tuple[str, Tensor]]:
    """A layer's own parameters and buffers, by name."""
    return [*layer.named_parameters(), *layer.named_buffers()]


def run(layers: Layers, inputs: Tensor) -> Tensor:
    """The layers' output, with the tensors that they hold now."""
    value = inputs
    for _, layer in layers:
        value = layer(value)
    return value
