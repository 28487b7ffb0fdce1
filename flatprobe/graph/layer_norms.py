"""Norms of the linear and convolutional layers of a network."""

import math
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from flatprobe.graph import Graph, Step, operators
from flatprobe.graph.lipschitz import convolution_of
from flatprobe.network.parametrized import holder_of, with_computed
from flatprobe.network.sequential import calls_forward, runs_as
from flatprobe.network.weights import weights_of

_LAYERS = ("linear", "convolution")
# Operations that add or concatenate a weight, without a product.
_BESIDE = {"add", "sub", "subtract", "rsub", "cat", "concat", "concatenate", "stack", "hstack", "where"}


@dataclass
class Layers:
    """Norms of the layers in order of application, and the weights without norms.

    Attributes:
        names: names of the layers; the second use of a layer is "name (2)".
        values: the columns of `WeightNorms.layers`, one row per layer.
        fan_in: the l1 norm of the weights of each unit, one tensor per layer.
        left_out: modules without norms, with their class, and names of weights that the network itself holds.
    """

    names: list[str] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    fan_in: list[Tensor] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, weight: Tensor, op: operators.Convolution | Tensor, positions: int = 1) -> None:
        """Add the norms of a layer as a linear operator that is applied at each position."""
        uses = sum(name in {own, own.rpartition(" (")[0]} for own in self.names)
        self.names.append(f"{name} ({uses + 1})" if uses else name)
        spectral = operators.spectral_norm(op)
        frobenius = operators.frobenius_norm(op) * math.sqrt(positions)
        stable_rank = (frobenius / spectral) ** 2 if spectral else float("nan")
        reshaped = operators.reshaped_spectral_norm(weight), operators.reshaped_frobenius_norm(weight)
        self.values.append([spectral, frobenius, stable_rank, *reshaped])
        self.fan_in.append(weight.flatten(1).abs().sum(1))


def applied_layers(module: nn.Module, graph: Graph) -> Layers:
    """Norms of the layers that a traced network applies.

    Two kinds of weights have no norms and are named in `left_out`:

    - weights of two or more dimensions in other operations than linear layers and convolutions;
    - linear and convolutional modules that compute more than this operation: other padding than zeros, another forward,
      or hooks.

    Args:
        module: the network.
        graph: its folded trace.
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
            left_out.append(_name_with_class(modules, step.layer))
        elif step.kind == "convolution":
            op = convolution_of(step, graph.steps[step.sources[0]].shape)
            result.add(step.layer or step.operation, step.tensors["weight"], op)
        elif step.kind == "linear":  # A linear layer acts at each position.
            weight = step.tensors["weight"]
            result.add(step.layer or step.operation, weight, weight, positions=math.prod(step.shape[:-1]))
        elif step.operation.removeprefix("aten.").partition(".")[0].rstrip("_") not in _BESIDE:
            left_out += [_owner(modules, name) for name in sorted(step.weights) if axes.get(name, 0) > 1]
    result.left_out = list(dict.fromkeys(left_out))
    return result


def listed_layers(module: nn.Module) -> Layers:
    """Norms of the linear layers of a network without a trace, by modules."""
    result = Layers()
    modules = dict(module.named_modules())
    parameters = weights_of(module)
    state = with_computed(module, parameters)
    for name, layer in modules.items():
        if runs_as(layer, nn.Linear):
            # A weight tied to another layer, as in most language models, has the other layer's name in the state.
            weight = state.get(f"{name}.weight" if name else "weight", layer.weight)
            assert isinstance(weight, Tensor)
            weight = weight.detach().cpu().double()
            result.add(name, weight, weight)
    others = [name for name, value in parameters.items() if value.ndim > 1 and holder_of(name) not in result.names]
    result.left_out = list(dict.fromkeys(_owner(modules, name) for name in others))
    return result


def _permutes(step: Step, graph: Graph) -> bool:
    sizes = [math.prod(graph.steps[source].shape) for source in step.sources]
    return step.kind == "rearrange" and sizes == [math.prod(step.shape)] and step.options["repeats"] == 1


def _owner(modules: dict[str, nn.Module], name: str) -> str:
    """The module that holds a parameter, or the parameter of the network."""
    return _name_with_class(modules, holder_of(name)) if holder_of(name) else repr(name)


def _name_with_class(modules: dict[str, nn.Module], name: str) -> str:
    return f"{name!r} ({type(modules[name]).__name__})" if name else type(modules[name]).__name__
