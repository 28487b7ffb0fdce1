"""Bounds of a given network on given data, with counts and error measured."""

from torch import nn

from flatprobe.bounds.bound import Bound
from flatprobe.bounds.counting import bits, hoeffding
from flatprobe.data import LabelledData
from flatprobe.risk.empirical import EmpiricalRisk


def held_out(model: nn.Module, data: LabelledData, *, delta: float = 0.05, batch_size: int | None = None) -> Bound:
    """`hoeffding` at the network's error on data that it was not trained, stopped or tuned on.

    Args:
        model: a classifier in eval mode; never changed.
        data: held-out samples.
        delta: probability that the bound fails; 0.05 by convention.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `Bound` for the 0-1 loss. One forward pass over the data.
    """
    error = EmpiricalRisk(model, data, batch_size=batch_size)().error
    return hoeffding(samples=len(data), empirical=error, delta=delta)


def network_bits(model: nn.Module, data: LabelledData, *, delta: float = 0.05, batch_size: int | None = None) -> Bound:
    """`bits` at the network's error on its training data, with the parameters' own bits.

    Shared weights count once. Floating buffers (BatchNorm's statistics) count too, since the function depends on them.

    Args:
        model: a classifier in eval mode; never changed.
        data: the samples that the network was trained on.
        delta: probability that the bound fails; 0.05 by convention.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `Bound` for the 0-1 loss. One forward pass over the data.
    """
    risk = EmpiricalRisk(model, data, batch_size=batch_size)
    state = [value for value in (*risk.center.values(), *risk.buffers.values()) if value.is_floating_point()]
    parameters = sum(value.numel() for value in state)
    total = sum(8 * value.element_size() * value.numel() for value in state)
    return bits(
        parameters=parameters,
        bits_per_parameter=total / parameters,
        samples=len(data),
        empirical=risk().error,
        delta=delta,
    )
