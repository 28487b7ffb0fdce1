"""Which layer's units feed which layer, read off the traced network."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from flatprobe.graph import Graph, Step, trace
from flatprobe.graph.reparametrize.ownership import Owners

# One value at a time, without mixing units (which `_carried` checks).
_PASSED = frozenset(
    ("activation", "max_pool", "average_pool", "adaptive_max_pool", "adaptive_average_pool", "mean", "rearrange")
)
_HOMOGENEOUS = frozenset(("relu", "leaky_relu"))  # s(a v) = a s(v) for a > 0
_WEIGHTED = frozenset(("linear", "convolution"))
# The codes of units are integers; average pooling returns them up to rounding in float64.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Chain:
    """The units of a layer on their one way to the next layer, through BatchNorm, activations, pools and reshapes.

    Attributes:
        layer: the module, linear or a convolution, that computes the units.
        units: how many.
        norms: the BatchNorm modules on the way, in order.
        target: the module, linear or a convolution, that alone takes them; None where they go elsewhere.
        columns: (units, columns a unit) the target's inputs that each unit becomes (several behind a flatten).
        scaled: the module after which all is positively homogeneous up to the target: the layer, or the last BatchNorm;
            None where that is not so, or where it has nothing to scale.
        absorbing: the first BatchNorm, where all up to it is positively homogeneous.
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
    """What can be changed.

    Attributes:
        chains: one a layer that can be followed.
        layers: every linear layer and convolution of the trace but the last module's, by name.
        norms: every BatchNorm module of the trace, by name.
        last: the module whose weights and bias scale the logits; None where there is none.
    """

    chains: tuple[Chain, ...]
    layers: tuple[str, ...]
    norms: tuple[str, ...]
    last: str | None


def layout(module: nn.Module, input_shape: Sequence[int]) -> Layout:
    """The chains of a classifier in eval mode, by tracing it (`flatprobe.graph.tracer`).

    A layer is followed where its value, and each one after it up to the next layer, has one user, and where each layer
    holds its own weights and is used once: layers in the stem of a residual network, tied or computed weights and
    grouped convolutions are left out.

    Args:
        module: a classifier in eval mode that takes one tensor; never changed.
        input_shape: of one sample.

    Returns:
        `Layout`.

    Raises:
        ValueError: if it cannot be traced.
    """
    graph = trace(module, input_shape)
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
    absorbing, homogeneous = None, True  # homogeneous: since the layer, or the last BatchNorm
    while len(users := graph.users(index)) == 1:
        index = users[0]
        step = graph.steps[index]
        name = owners.name(step)
        if step.kind in _PASSED:
            carried = _carried(step, codes)
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
    return torch.ones((2, *shape), dtype=torch.float64, device="cpu")  # a trace takes two samples


def _channels(units: int, step: Step) -> Tensor:
    """The codes 1, ..., units, to be broadcast along the dimension that holds the units of a layer's value."""
    codes = torch.arange(1, units + 1, dtype=torch.float64, device="cpu")
    return codes if step.kind == "linear" else codes.view(-1, *[1] * (len(step.shape) - 1))


def _carried(step: Step, codes: Tensor) -> Tensor | None:
    """The code of the unit that each entry of the step's value comes from, 0 for padding; None where units are mixed.

    Activations leave it as it is. Other steps are given c and 1/c: an average or a maximum of different c's has a
    product with that of their reciprocals above 1, and of 1 where all are the same (Cauchy-Schwarz).
    """
    if step.kind == "activation":
        return codes
    there = (codes > 0).double()
    try:
        ones, values, inverses = (step.call(part) for part in (there, codes, there / codes.clamp_min(1)))
    except (RuntimeError, ValueError, IndexError):  # a kernel that has no float64, say: not followed
        return None
    known = ones > 0
    carried, inverse = (part / ones.where(known, 1.0) for part in (values, inverses))
    if bool((carried * inverse - 1).abs().where(known, 0.0).gt(_ROUNDING).any()):
        return None
    return carried.round().where(known, 0.0)


def _in_order(codes: Tensor, units: int) -> bool:
    """Whether channel c of the value is unit c, as BatchNorm needs it."""
    expected = torch.arange(1, units + 1, dtype=torch.float64, device="cpu").view(-1, *[1] * (codes.ndim - 2))
    return codes.shape[1] == units and bool((codes == expected).all())


def _columns(step: Step, codes: Tensor, units: int) -> Int64[Tensor, "units columns"] | None:
    """For each unit, the inputs of the layer that it becomes; None where one mixes units, or their numbers differ."""
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
    """The module whose value becomes the logits through positively homogeneous steps."""
    index = len(graph.steps) - 1
    step = graph.steps[index]
    while step.kind in _PASSED and (step.kind != "activation" or step.options["name"] in _HOMOGENEOUS):
        index = step.sources[0]
        step = graph.steps[index]
        if len(graph.users(index)) != 1:
            return None
    name = owners.name(step)
    return name if name is not None and owners.has_weight(name) else None
