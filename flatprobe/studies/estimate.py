"""Estimate of a comparison's passes, memory and time, from a timed batch of each network."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.network.batch_sizes import bytes_per_sample
from flatprobe.network.network import Network
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.studies.catalogue import passes_of
from flatprobe.studies.chosen import Chosen

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


def estimate(
    models: Mapping[str, nn.Module], data: Mapping[str, LabelledData], chosen: Sequence[Chosen], loss: object
) -> list[Estimate]:
    """The estimates, network by network; landscapes are those of one network with three corners.

    The time is that of a gradient over the first 64 samples, in proportion to the samples. Adaptive probes may take
    half or twice as long.

    Raises:
        ValueError: for a network that cannot be measured on its data.
    """
    return [found for name, model in models.items() for found in _of(name, model, data[name], chosen, loss)]


def _of(name: str, model: nn.Module, data: LabelledData, chosen: Sequence[Chosen], loss: object) -> Iterator[Estimate]:
    part = data.head(min(_SAMPLES, len(data)))
    risk = EmpiricalRisk(model, part, loss)
    forward, gradient = _seconds(risk, len(data) / len(part))
    network = Network(model)
    weights = sum(value.nbytes for value in network.weights.values())
    batch = min(network.batch_size(None, data), len(data)) * bytes_per_sample(network, part)
    classes = data.classes or 1
    for own in chosen:
        passes = passes_of(own, len(data), classes)
        yield Estimate(
            measurement=own.name,
            network=name,
            forward=passes.forward if passes else None,
            gradients=passes.gradients if passes else None,
            seconds=passes.forward * forward + passes.gradients * gradient if passes else None,
            gigabytes=(_COPIES * weights + batch) / 1e9,
        )


def _seconds(risk: EmpiricalRisk, factor: float) -> tuple[float, float]:
    """Seconds of a forward pass and of a gradient over the data; the first of each, which prepares, does not count."""
    timed = []
    for work in (risk, risk.gradient):
        work()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        timed.append((time.perf_counter() - started) * factor)
    return timed[0], timed[1]
