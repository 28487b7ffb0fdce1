"""Decomposition of nested `nn.Sequential` modules into layers."""

from collections.abc import Callable, Container, Mapping, Set
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as calls

from flatprobe.network.modules import BATCH_NORMS
from flatprobe.network.parametrized import computes_weight

Layers = list[tuple[str, nn.Module]]
# What a layer computes of its inputs and its tensors, None for those that it lacks.
Function = Callable[..., Tensor]


class Step(NamedTuple):
    """A layer whose function is known: `function(layer, inputs, *tensors)`, with the names of its tensors."""

    function: Function
    layer: nn.Module
    names: tuple[str, ...]


class _Known(NamedTuple):
    """A type of layer whose function is known, with its `forward` and the names of all its tensors."""

    forward: object
    function: Function
    names: tuple[str, ...]


_KNOWN: dict[type[nn.Module], _Known] = {}


def know(kind: type[nn.Module], function: Function, *names: str) -> None:
    """State what layers of exactly this type compute, each sample alone and without a trace: see `Step`."""
    _KNOWN[kind] = _Known(kind.forward, function, names)


def _convolve(convolution: Function, ndim: int) -> Function:
    def function(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.ndim != ndim:  # Torch takes a batch without its channels for the channels of one sample.
            msg = f"the inputs must have {ndim} dimensions, got {x.ndim}. Give them a dimension of channels"
            raise ValueError(msg)
        return convolution(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    return function


def _normalise_by_statistics(
    layer: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, _count: Tensor
) -> Tensor:
    layer._check_input_dim(x)  # noqa: SLF001 - as its forward does
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, layer.eps)


for _kind in (
    nn.Flatten, nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh,
    nn.Dropout, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
):  # fmt: skip
    know(_kind, _kind.forward)
know(nn.Linear, lambda _layer, x, weight, bias: F.linear(x, weight, bias), "weight", "bias")
know(nn.Conv1d, _convolve(F.conv1d, 3), "weight", "bias")
know(nn.Conv2d, _convolve(F.conv2d, 4), "weight", "bias")
for _kind in (nn.BatchNorm1d, nn.BatchNorm2d):  # type: ignore[assignment]
    know(_kind, _normalise_by_statistics, "weight", "bias", "running_mean", "running_var", "num_batches_tracked")


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


def steps_of(module: nn.Module, state: Container[str]) -> list[Step] | None:
    """The steps of a network whose function is known without a pass, else None.

    Known are nested plain `nn.Sequential` modules of the layers in `_KNOWN`, in eval mode: a pass draws nothing, writes
    to nothing and keeps nothing, and treats each sample alone.

    Args:
        module: the network.
        state: the names of its parameters and buffers; a layer that is used twice has one name here.
    """
    layers = layers_of(module)
    if layers is None or not all(_is_known(layer) for _, layer in layers):
        return None
    steps: list[Step] = []
    for prefix, layer in layers:
        _, function, names = _KNOWN[type(layer)]
        if not all(f"{prefix}.{name}" in state for name in names if getattr(layer, name) is not None):
            return None
        steps.append(Step(function, layer, tuple(f"{prefix}.{name}" for name in names)))
    return steps


def _is_known(layer: nn.Module) -> bool:
    """True if the function of a layer is that of its type in `_KNOWN`."""
    kind, own = type(layer), vars(layer)
    known = _KNOWN.get(kind)
    if known is None or kind.forward is not known.forward or not calls_forward(layer):
        return False
    held = {**own["_parameters"], **own["_buffers"]}
    return (
        not own["training"]
        and not own.get("inplace", False)
        and held.keys() == set(known.names)
        and all(value is None or type(value) in {nn.Parameter, Tensor} for value in held.values())
        and own.keys().isdisjoint(known.names)
        and (not isinstance(layer, nn.Flatten) or (layer.start_dim, layer.end_dim) == (1, -1))
        and (not isinstance(layer, nn.Conv1d | nn.Conv2d) or _is_plain(layer))
    )


def _is_plain(layer: nn.Conv1d | nn.Conv2d) -> bool:
    """True unless a convolution pads by values, or is one of those that `watching` calls unsafe in channels-last."""
    return layer.padding_mode == "zeros" and (max(layer.kernel_size) > 1 or max(layer.stride) == 1)


def run_steps(steps: list[Step], inputs: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Output of the steps at these parameters and buffers."""
    value = inputs
    for function, layer, names in steps:
        value = function(layer, value, *map(state.get, names))
    return value


def ends_in_sigmoid(steps: list[Step]) -> bool:
    """True if a sigmoid follows the last layer with tensors."""
    for step in reversed(steps):
        if step.names:
            return False
        if isinstance(step.layer, nn.Sigmoid):
            return True
    return False
