"""Decomposition of nested `nn.Sequential` modules into layers."""

from torch import Tensor, nn
from torch.nn.modules import module as calls

from flatprobe.network.parametrized import computes_weight

Layers = list[tuple[str, nn.Module]]


def layers_of(module: nn.Module, prefix: str = "") -> Layers | None:
    """The named layers of nested plain `nn.Sequential` modules, else None."""
    kind = type(module)
    if (
        kind.forward is not nn.Sequential.forward
        or getattr(kind, "__iter__", None) is not nn.Sequential.__iter__
        or not calls_forward(module)
    ):
        return None
    if any(map(_has_hooks, module.modules())):
        return None
    if calls._global_forward_hooks or calls._global_forward_pre_hooks:  # noqa: SLF001 - torch has no public way to ask
        return None
    layers: Layers = []
    for name, child in module._modules.items():  # noqa: SLF001 - named_children() leaves out a layer's second use
        if child is not None:
            nested = layers_of(child, f"{prefix}{name}.")
            layers.extend(nested if nested is not None else [(prefix + name, child)])
    return layers


def calls_forward(layer: nn.Module) -> bool:
    """True if calling the module runs its forward and its hooks and nothing else."""
    kind = type(layer)
    return kind.__call__ is nn.Module.__call__ and kind._call_impl is nn.Module._call_impl  # noqa: SLF001


def runs_as(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """True if the module computes what `kind` computes with its weights."""
    before = layer._forward_pre_hooks.values()  # noqa: SLF001 - torch has no public way to ask
    return (
        type(layer).forward is kind.forward
        and calls_forward(layer)
        and "forward" not in vars(layer)
        and not layer._forward_hooks  # noqa: SLF001
        and all(computes_weight(hook, layer) for hook in before)
    )


def _has_hooks(layer: nn.Module) -> bool:
    hooks = layer._forward_hooks or layer._forward_pre_hooks  # noqa: SLF001 - torch has no public way to ask
    return bool(hooks) or "forward" in vars(layer)  # A replaced forward counts as a hook.


def affine_in_inputs(layer: nn.Module) -> bool:
    """True for a layer without parameters that is known to be affine in its inputs."""
    return isinstance(layer, nn.Flatten | nn.Identity) or getattr(layer, "affine_in_inputs", False)


def tensors_of(layer: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers of a layer, by name."""
    return [*layer.named_parameters(), *layer.named_buffers()]


def run(layers: Layers, inputs: Tensor) -> Tensor:
    """Output of the layers with the tensors that they hold at present."""
    value = inputs
    for _, layer in layers:
        value = layer(value)
    return value
