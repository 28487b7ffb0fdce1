"""Estimate of a comparison's passes, memory and time, from a timed batch of each network."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.network.batch_sizes import bytes_per_sample
from flatprobe.network.network import Network
from flatprobe.probes.generalization import TEST
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.studies.catalogue import passes_of
from flatprobe.studies.chosen import Chosen
from flatprobe.studies.measuring import Work
from flatprobe.studies.probes_by_name import LANDSCAPE

_SAMPLES = 64  # that are timed
_COPIES = 7  # of the weights: a Hessian product holds the most


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of one measurement of one network.

    Attributes:
        measurement: its name.
        network: the network.
        forward: forward passes over the data; None where the cost is not known.
        gradients: forward and backward passes.
        seconds: time, from a batch that was timed.
        gigabytes: memory of the weights' copies, and of a batch with its activations.
    """

    measurement: str
    network: str
    forward: float | None
    gradients: float | None
    seconds: float | None
    gigabytes: float


def estimate(work: Work) -> list[Estimate]:
    """The estimate of each measurement of each network; of landscapes, of each group.

    The time is that of a gradient over the first 64 samples, in proportion to the samples. Adaptive probes may take
    half or twice as long.

    Raises:
        ValueError: for a network that cannot be measured on its data.
    """
    passes = {name: _Pass.of(model, work.data[name], work.loss) for name, model in work.models.items()}
    rows = []
    for position, name in work.places():
        chosen = work.chosen[position]
        first = next(iter(work.corners(name))) if chosen.probe == LANDSCAPE else name
        samples = work.test.get(first, work.data[first]) if chosen.on == TEST else work.data[first]
        rows.append(passes[first].estimate(chosen, name, samples))
    return rows


@dataclass(frozen=True)
class _Pass:
    """Seconds of a forward pass and of a gradient over the data of a network, and the bytes that they take."""

    forward: float
    gradient: float
    gigabytes: float
    samples: int

    @classmethod
    def of(cls, model: nn.Module, data: LabelledData, loss: object) -> "_Pass":
        """The pass of a network over its data, from one over a part of the data."""
        part = data.head(min(_SAMPLES, len(data)))
        network, (forward, gradient) = Network(model), _seconds(model, part, loss, len(data) / len(part))
        weights = sum(value.nbytes for value in network.weights.values())
        batch = min(network.batch_size(None, data), len(data)) * bytes_per_sample(network, part)
        return cls(forward, gradient, (_COPIES * weights + batch) / 1e9, len(data))

    def estimate(self, chosen: Chosen, name: str, data: LabelledData) -> Estimate:
        """The estimate of one measurement."""
        count = min(chosen.samples or len(data), len(data))
        passes = passes_of(chosen, count, data.classes or 1)
        if passes is None:
            return Estimate(chosen.name, name, None, None, None, self.gigabytes)
        seconds = count / self.samples * (passes.forward * self.forward + passes.gradients * self.gradient)
        return Estimate(chosen.name, name, passes.forward, passes.gradients, seconds, self.gigabytes)


def _seconds(model: nn.Module, data: LabelledData, loss: object, factor: float) -> tuple[float, float]:
    """Seconds of a forward pass and of a gradient; the first of each, which prepares, does not count."""
    risk = EmpiricalRisk(model, data, loss or "cross_entropy")
    timed = []
    for work in (risk, risk.gradient):
        work()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        timed.append((time.perf_counter() - started) * factor)
    return timed[0], timed[1]
