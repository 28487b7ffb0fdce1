"""Chains: the units of a layer on their way to the next layer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from flatprobe.graph import Graph, Step, trace
from flatprobe.graph.reparametrize.ownership import Owners
from flatprobe.network.outputs import Output

# Steps that may keep units apart, which `_carry` checks.
_PASSED = frozenset(
    ("activation", "max_pool", "average_pool", "adaptive_max_pool", "adaptive_average_pool", "mean", "rearrange")
)
_HOMOGENEOUS = frozenset(("relu", "leaky_relu"))  # s(a v) = a s(v) for a > 0
_WEIGHTED = frozenset(("linear", "convolution"))
# The codes of units are integers, which average pooling returns up to rounding in float64.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Chain:
    """Units of a layer on their only way to the next layer.

    Attributes:
        layer: the module, linear or a convolution, that computes the units.
        units: the number of units.
        norms: the BatchNorm modules on the way, in order.
        target: the module, linear or a convolution, that alone takes the units; None if there is no such module.
        columns: (units, columns per unit) the inputs of the target that each unit becomes, several behind a flatten.
        scaled: the layer, or the last BatchNorm, if all steps from it to the target are positively homogeneous and it
            has weights to scale; else None.
        absorbing: the first BatchNorm if all steps up to it are positively homogeneous; else None.
    """

    layer: str
    units: int
    norms: tuple[str, ...] = ()
    target: str | None = None
    columns: Int64[Tensor, "units columns"] | None = field(default=None, repr=False)
    scaled: str | None = None
    absorbing: str | None = None


@dataclass(frozen=True)
class Layout:
    """Parts of a network that a reparametrization can change.

    Attributes:
        chains: one chain per layer that can be followed.
        layers: names of the linear layers and convolutions of the trace, without the last module.
        norms: names of the BatchNorm modules of the trace.
        last: the module whose weights and bias scale the logits; None if there is no such module.
    """

    chains: tuple[Chain, ...]
    layers: tuple[str, ...]
    norms: tuple[str, ...]
    last: str | None


def layout(module: nn.Module, input_shape: Sequence[int], output: Output = None) -> Layout:
    """Chains of a classifier in eval mode, by a trace (`flatprobe.graph.trace`).

    A layer is followed if its value, and every value up to the next layer, has one user. Each layer on the way must
    hold its weights itself and be used once. Layers of the stem of a residual network, tied or computed weights and
    grouped convolutions are not followed.

    Args:
        module: a classifier in eval mode that takes one tensor; never changed.
        input_shape: the shape of one sample.
        output: the output that is followed, as in `fp.WithOutput`.

    Returns:
        The chains, and the names of layers that can be changed.

    Raises:
        ValueError: if the network cannot be traced.
    """
    graph = trace(module, input_shape, output)
    owners = Owners(module, graph)
    chains = [
        _chain(graph, index, owners)
        for index, step in enumerate(graph.steps)
        if step.kind in _WEIGHTED and owners.name(step) is not None
    ]
    weighted = dict.fromkeys(step.layer for step in graph.steps if step.kind in _WEIGHTED)
    norms = dict.fromkeys(step.layer for step in graph.steps if owners.is_norm(step))
    last = _last(graph, owners)
    return Layout(tuple(chains), tuple(name for name in weighted if name != last), tuple(norms), last)


def _chain(graph: Graph, index: int, owners: Owners) -> Chain:
    step = graph.steps[index]
    layer, units = str(owners.name(step)), len(step.tensors["weight"])
    codes = _ones(step.shape) * _channels(units, step)
    norms: list[str] = []
    absorbing, homogeneous = None, True  # `homogeneous` covers the steps since the layer, or the last BatchNorm.
    while len(users := graph.users(index)) == 1:
        index = users[0]
        step = graph.steps[index]
        name = owners.name(step)
        if step.kind in _PASSED:
            carried = _carry(step, codes)
            if carried is None:
                break
            codes = carried
            homogeneous &= step.kind != "activation" or step.options["name"] in _HOMOGENEOUS
        elif step.kind == "affine" and name is not None and _in_order(codes, units):
            absorbing = name if homogeneous and not norms else absorbing
            norms.append(name)
            homogeneous = True
        elif step.kind in _WEIGHTED and name is not None and (columns := _columns(step, codes, units)) is not None:
            source = norms[-1] if norms else layer
            scaled = source if homogeneous and owners.has_weight(source) else None
            return Chain(layer, units, tuple(norms), name, columns, scaled, absorbing)
        else:
            break
    return Chain(layer, units, tuple(norms), absorbing=absorbing)


def _ones(shape: Sequence[int]) -> Tensor:
    return torch.ones((2, *shape), dtype=torch.float64, device="cpu")  # A trace takes two samples.


def _channels(units: int, step: Step) -> Tensor:
    """Codes 1, ..., units, to be broadcast along the dimension of the units."""
    codes = torch.arange(1, units + 1, dtype=torch.float64, device="cpu")
    return codes if step.kind == "linear" else codes.view(-1, *[1] * (len(step.shape) - 1))


def _carry(step: Step, codes: Tensor) -> Tensor | None:
    """Code of the unit behind each entry, 0 for padding; None if units mix.

    Activations do not change the codes. Other steps are applied to c and 1/c. The product of the two averages, or of
    the two maxima, is 1 for equal c and larger for different c (Cauchy-Schwarz).
    """
    if step.kind == "activation":
        return codes
    there = (codes > 0).double()
    try:
        ones, values, inverses = (step.call(part) for part in (there, codes, there / codes.clamp_min(1)))
    except (RuntimeError, ValueError, IndexError):  # The kernel does not support float64, say.
        return None
    known = ones > 0
    carried, inverse = (part / ones.where(known, 1.0) for part in (values, inverses))
    if bool((carried * inverse - 1).abs().where(known, 0.0).gt(_ROUNDING).any()):
        return None
    return carried.round().where(known, 0.0)


def _in_order(codes: Tensor, units: int) -> bool:
    """True if channel c of the value is unit c, as BatchNorm requires."""
    expected = torch.arange(1, units + 1, dtype=torch.float64, device="cpu").view(-1, *[1] * (codes.ndim - 2))
    return codes.shape[1] == units and bool((codes == expected).all())


def _columns(step: Step, codes: Tensor, units: int) -> Int64[Tensor, "units columns"] | None:
    """The inputs of a layer that each unit becomes; None if units mix."""
    channel = codes.ndim - 1 if step.kind == "linear" else 1
    entries = codes.movedim(channel, 0).flatten(1)
    largest = entries.amax(1)
    if bool(((entries != largest[:, None]) & (entries > 0)).any()):
        return None
    counts = torch.bincount(largest.long(), minlength=units + 1)[1:]
    if int(counts.min()) != int(counts.max()) or int(counts[0]) == 0:
        return None
    order = torch.argsort(largest, stable=True)
    return order[largest[order] > 0].view(units, -1)


def _last(graph: Graph, owners: Owners) -> str | None:
    """The module with only positively homogeneous steps up to the logits."""
    index = len(graph.steps) - 1
    step = graph.steps[index]
    while step.kind in _PASSED and (step.kind != "activation" or step.options["name"] in _HOMOGENEOUS):
        index = step.sources[0]
        step = graph.steps[index]
        if len(graph.users(index)) != 1:
            return None
    name = owners.name(step)
    return name if name is not None and owners.has_weight(name) else None
