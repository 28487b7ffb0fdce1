"""Risk along lines and in simplices of weights, by a linear first layer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from flatprobe.data import LabelledData
from flatprobe.data.inputs import Inputs
from flatprobe.network.network import Network, Split
from flatprobe.network.weights import combine, linear_combination
from flatprobe.risk.function import Risk

Batches = Iterable[tuple[Inputs, Tensor]]
Mean = Callable[[Iterator[tuple[Tensor, Tensor]]], Risk]
Vectors = Sequence[Mapping[str, Tensor]]

# The most bytes of first-layer outputs that one call of `along` stores. The bound is fixed, so that the choice of the
# method does not depend on the machine. 60,000 samples x 512 units x 3 endpoints are 0.37 GB.
_STORE = 2**30


def split_for(network: Network, data: LabelledData, vectors: Vectors) -> Split | None:
    """The split of the network after its first layer, if possible and useful."""
    split = network.first_linear()
    first = next(iter(data.batches(1))).inputs
    if split is None or not isinstance(first, Tensor):
        return None
    head, _, names = split
    holders = [vector for vector in vectors if names & vector.keys()]
    with torch.no_grad():
        width = head(network.prepare(first), network.weights).numel()  # A layer may be applied to each token.
    fits = len(holders) * len(data) * width * network.dtype.itemsize <= _STORE
    return split if holders and fits else None


def along_split(
    network: Network, batches: Batches, mean: Mean, split: Split, vectors: Vectors, kept: list[Tensor | None]
) -> Callable[[Sequence[float]], Risk]:
    """`EmpiricalRisk.along` by stored first-layer outputs, one per vector; `kept` has those of the first one."""
    head, tail, names = split
    first = [
        {name: vector.get(name, torch.zeros_like(network.weights[name])) for name in names}
        if names & vector.keys()
        else None
        for vector in vectors
    ]
    rest = [{name: value for name, value in vector.items() if name not in names} for vector in vectors]
    stored: list[tuple[list[Tensor | None], Tensor]] = []
    with torch.no_grad():
        for place, (inputs, labels) in enumerate(batches):
            if place == 0 and kept and (kept[0] is None or len(kept[0]) != len(labels)):
                kept.clear()  # The batches were larger, before memory ran out.
            known = kept[place : place + 1]
            outputs = [None if own is None else head(inputs, own) for own in first[len(known) :]]
            stored.append((known + outputs, labels))
    kept[:] = [outputs[0] for outputs, _ in stored]

    def at(coefficients: Sequence[float]) -> Risk:
        weights = {**network.weights, **combine(rest, coefficients)}
        with torch.no_grad():
            return mean(
                (tail(linear_combination(outputs, coefficients), weights), labels) for outputs, labels in stored
            )

    return at
