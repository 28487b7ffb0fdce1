"""The linear and convolutional layers of a network with their norms, and what else it applies that has weights."""

import math
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from flatprobe.graph import Graph, Step, operators
from flatprobe.graph.lipschitz import convolution_of
from flatprobe.network.parametrized import applied, holder_of
from flatprobe.network.sequential import calls_forward, runs_as
from flatprobe.network.weights import weights_of

_LAYERS = ("linear", "convolution")
# Operations that add a weight to a value, or set it beside one, and multiply none.
_BESIDE = {"add", "sub", "subtract", "rsub", "cat", "concat", "concatenate", "stack", "hstack", "where"}


@dataclass
class Layers:
    """The layers in order of application, and those that are left out.

    Attributes:
        names: of the layers; a layer's second use is "name (2)".
        values: of each layer, the columns of `WeightNorms.layers`.
        fan_in: of each layer, the l1 norm of each unit's weights.
        left_out: by module and class, or, of the network's own weights, by name.
    """

    names: list[str] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    fan_in: list[Tensor] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, weight: Tensor, op: operators.Convolution | Tensor, positions: int = 1) -> None:
        """The layer as the operator that it is, applied at each of the positions."""
        uses = sum(name in {own, own.rpartition(" (")[0]} for own in self.names)
        self.names.append(f"{name} ({uses + 1})" if uses else name)
        spectral = operators.spectral_norm(op)
        frobenius = operators.frobenius_norm(op) * math.sqrt(positions)
        stable_rank = (frobenius / spectral) ** 2 if spectral else float("nan")
        reshaped = operators.reshaped_spectral_norm(weight), operators.reshaped_frobenius_norm(weight)
        self.values.append([spectral, frobenius, stable_rank, *reshaped])
        self.fan_in.append(weight.flatten(1).abs().sum(1))


def applied_layers(module: nn.Module, graph: Graph) -> Layers:
    """The layers that a network applies.

    Left out are weights of two or more axes that meet a value in another operation, and the linear and convolutional
    modules that do more than such an operation: another padding than by zeros, an own forward, hooks.

    Args:
        module: the network.
        graph: its trace, folded.

    Returns:
        `Layers`.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    altered = {
        step.layer
        for step in graph.steps
        if step.sources
        and isinstance(modules.get(step.layer), nn.Linear | _ConvNd)
        and (not calls_forward(modules[step.layer]) or not (step.kind in _LAYERS or _permutes(step, graph)))
    }
    axes = {name: value.ndim for name, value in weights_of(module).items()}
    result, left_out = Layers(), []
    for step in graph.steps:
        if step.layer in altered:
            left_out.append(_named(modules, step.layer))
        elif step.kind == "convolution":
            op = convolution_of(step, graph.steps[step.sources[0]].shape)
            result.add(step.layer or step.operation, step.tensors["weight"], op)
        elif step.kind == "linear":  # applied at each position
            weight = step.tensors["weight"]
            result.add(step.layer or step.operation, weight, weight, positions=math.prod(step.shape[:-1]))
        elif step.operation.removeprefix("aten.").partition(".")[0].rstrip("_") not in _BESIDE:
            left_out += [_owner(modules, name) for name in sorted(step.weights) if axes.get(name, 0) > 1]
    result.left_out = list(dict.fromkeys(left_out))
    return result


def listed_layers(module: nn.Module) -> Layers:
    """The linear layers of a network that is not traced, in their order as modules; other modules are left out."""
    result = Layers()
    modules = dict(module.named_modules())
    parameters = weights_of(module)
    state = applied(module, parameters)
    for name, layer in modules.items():
        if runs_as(layer, nn.Linear):
            weight = state[f"{name}.weight" if name else "weight"].detach().cpu().double()
            result.add(name, weight, weight)
    others = [name for name, value in parameters.items() if value.ndim > 1 and holder_of(name) not in result.names]
    result.left_out = list(dict.fromkeys(_owner(modules, name) for name in others))
    return result


def _permutes(step: Step, graph: Graph) -> bool:
    sizes = [math.prod(graph.steps[source].shape) for source in step.sources]
    return step.kind == "rearrange" and sizes == [math.prod(step.shape)] and step.options["repeats"] == 1


def _owner(modules: dict[str, nn.Module], name: str) -> str:
    """The module of a parameter, as it is named; the parameter where that is the network itself."""
    return _named(modules, holder_of(name)) if holder_of(name) else repr(name)


def _named(modules: dict[str, nn.Module], name: str) -> str:
    return f"{name!r} ({type(modules[name]).__name__})" if name else type(modules[name]).__name__
