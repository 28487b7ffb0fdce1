"""Batches under attack: the network as a function of the one tensor that the attack moves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flatprobe.attacks import Box, Perturbed, minimum_norm
from flatprobe.data import Batch, LabelledData
from flatprobe.data.inputs import Inputs, map_tensors
from flatprobe.network.checks import check_batch, check_logits
from flatprobe.network.differentiable import check_differentiable
from flatprobe.network.network import Network
from flatprobe.probes.per_sample import continuous, isolate
from flatprobe.utils import rng


@dataclass(frozen=True)
class Subject:
    """A batch under attack.

    Attributes:
        network: the classifier.
        given: all inputs of the batch, as the network takes them.
        inputs: the one floating tensor among these, which the attack moves.
        labels: (samples,).
        logits: (samples, classes) at the inputs.
        start: position of the first sample in the data.
    """

    network: Network
    given: Inputs
    inputs: Tensor
    labels: Tensor
    logits: Tensor
    start: int

    def forward(self, rows: Tensor | None = None) -> Network:
        """The function from points, in place of the inputs of these rows (None: all), to logits."""
        if rows is None or isinstance(self.given, Tensor):
            return self.network.holding(self.given)[0]
        return self.network.holding(map_tensors(lambda part: part[rows], self.given))[0]

    def noise(self, seed: int, name: str) -> Callable[[int], Tensor]:
        """k -> the k-th standard normal noise of this name, like the inputs, indexed by sample."""
        start, x = self.start, self.inputs
        return lambda k: rng.sample_normal(start, start + len(x), x.shape[1:], seed, name, k, device=x.device).to(x)

    def attack(self, name: str, rows: Tensor, norm: str, box: Box, steps: int | None, seed: int) -> Perturbed:
        """A minimum-norm attack on the correctly classified samples, at `rows`; distance 0 at the others."""
        points = self.inputs.clone()
        distances = torch.zeros(len(points), dtype=torch.float64, device=points.device)
        if len(rows):
            noise = self.noise(seed, name)
            forward, inputs, labels = self.forward(rows), points[rows], self.labels[rows]
            found = minimum_norm(
                name, forward, inputs, labels, norm=norm, box=box, steps=steps, draw=lambda k: noise(k)[rows]
            )
            points[rows], distances[rows] = found.points, found.distance
        return Perturbed(points, distances)


def each_subject(
    network: Network, data: LabelledData, batch_size: int, probe: str, box: tuple[float, float] | None
) -> Iterator[Subject]:
    """The checked batches for an attack.

    Args:
        network: the classifier; its logits must be differentiable in the inputs.
        data: the samples.
        batch_size: samples per pass.
        probe: name of the calling probe, for messages.
        box: least and largest value of an input, or None.

    Yields:
        One `Subject` per batch.

    Raises:
        TypeError: if the inputs are not one floating tensor.
        ValueError: if the network or the data cannot be probed.
        ValueError: if the box is not two increasing finite numbers, or does not contain the data.
    """
    if box is not None and not -float("inf") < box[0] < box[1] < float("inf"):
        msg = f"box must be two finite numbers, the least first, or None for all of R^d, got {box}"
        raise ValueError(msg)
    for batch in data.batches(batch_size):
        if batch.start == 0:
            check_batch(network, batch, data.classes)
        batch = Batch(map_tensors(_plain, batch.inputs), _plain(batch.labels), batch.start)
        held, prepared = isolate(network, batch)
        inputs = continuous(prepared, probe)
        if batch.start == 0:
            check_differentiable(held, inputs)
        _check_box(inputs, batch.start, box)
        with torch.no_grad():
            logits = held(inputs)
            check_logits(logits, batch.start)
        yield Subject(network, network.prepare(batch.inputs), inputs, prepared.labels, logits, batch.start)


def _plain(value: Tensor) -> Tensor:
    """The tensor, or a copy of an inference-mode tensor, which autograd cannot save for backward."""
    return value.clone() if value.is_inference() else value


def _check_box(inputs: Tensor, start: int, box: tuple[float, float] | None) -> None:
    if box is None:
        return
    low, high = torch.stack(inputs.aminmax()).tolist()
    if not (box[0] <= low and high <= box[1]):  # false for NaN
        outside = (inputs < box[0]) | (inputs > box[1])
        row = int(outside.flatten(1).any(1).nonzero()[0])
        value = float(inputs[row][outside[row]][0])
        msg = (
            f"the box [{box[0]:g}, {box[1]:g}] must contain the data, got {value:g} in sample {start + row}. Give "
            "it in the inputs' units, or None for all of R^d"
        )
        raise ValueError(msg)
