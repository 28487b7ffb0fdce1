"""Decomposition of nested `nn.Sequential` modules into layers."""

from collections.abc import Callable, Container, Mapping, Set

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as calls

from flatprobe.network.modules import BATCH_NORMS
from flatprobe.network.parametrized import computes_weight

Layers = list[tuple[str, nn.Module]]
# A linear layer, as the names of its weight and bias, or the function of a layer without weights.
Step = tuple[str, str] | Callable[[Tensor], Tensor]

# Layers of torch without a state that treat each entry or each sample alone, with their `forward`.
_STATELESS: dict[type[nn.Module], object] = {
    kind: kind.forward
    for kind in (
        nn.Linear, nn.Flatten, nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus,
        nn.Tanh,
    )
}  # fmt: skip


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


def first_linear(layers: Layers, state: Set[str], *, in_inputs: bool) -> int | None:
    """Place of the first layer with parameters, if it is an `nn.Linear`, else None.

    Args:
        layers: from `layers_of`.
        state: the names of the parameters and buffers of the network.
        in_inputs: True if the layers before it must be affine in the inputs.
    """
    names = [[name for name, _ in layer.named_parameters()] for _, layer in layers]
    own = [f"{prefix}.{name}" for prefix, layer in layers for name, _ in tensors_of(layer)]
    first = next((index for index, found in enumerate(names) if found), None)
    # The module names a layer that is used twice, or a tensor that two layers share, once; this list has it twice.
    if first is None or len(own) != len(set(own)) or set(own) != state or type(layers[first][1]) is not nn.Linear:
        return None
    before = [layer for _, layer in layers[:first]]
    if any(isinstance(layer, BATCH_NORMS) for layer in before):
        return None
    return first if not in_inputs or all(map(affine_in_inputs, before)) else None


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


def steps_of(module: nn.Module, parameters: Container[str]) -> list[Step] | None:
    """The steps of a network whose function is known without a pass, else None.

    Known are nested plain `nn.Sequential` modules of linear layers, flattening and activations of torch: a pass draws
    nothing, writes to nothing and keeps nothing, and treats each sample alone.

    Args:
        module: the network.
        parameters: the names of its parameters; a layer that is used twice has one name here.
    """
    layers = layers_of(module)
    if layers is None or not all(_is_stateless(layer) for _, layer in layers):
        return None
    steps: list[Step] = []
    for prefix, layer in layers:
        if type(layer) is not nn.Linear:
            steps.append(layer.forward)
            continue
        if not all(f"{prefix}.{name}" in parameters for name, _ in layer.named_parameters()):
            return None
        steps.append((f"{prefix}.weight", f"{prefix}.bias"))
    return steps


def _is_stateless(layer: nn.Module) -> bool:
    kind, own = type(layer), vars(layer)
    return (
        kind in _STATELESS
        and kind.forward is _STATELESS[kind]
        and calls_forward(layer)
        and not own.get("inplace", False)
        and (not isinstance(layer, nn.Flatten) or (layer.start_dim, layer.end_dim) == (1, -1))
        and own["_parameters"].keys() == ({"weight", "bias"} if kind is nn.Linear else set())
        and all(value is None or type(value) is nn.Parameter for value in own["_parameters"].values())
        and not own["_buffers"]
        and own.keys().isdisjoint({"weight", "bias"})
    )


def run_steps(steps: list[Step], inputs: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Output of the steps at these weights."""
    value = inputs
    for step in steps:
        value = F.linear(value, weights[step[0]], weights.get(step[1])) if isinstance(step, tuple) else step(value)
    return value


def ends_in_sigmoid(steps: list[Step]) -> bool:
    """True if a sigmoid follows the last linear layer."""
    for step in reversed(steps):
        if isinstance(step, tuple):
            return False
        if isinstance(getattr(step, "__self__", None), nn.Sigmoid):
            return True
    return False
