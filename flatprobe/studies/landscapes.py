"""Landscapes between the networks of a group."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.network.network import Network
from flatprobe.probes.coefficients import segment, simplex
from flatprobe.probes.interpolation import Interpolation, interpolate
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.risk.endpoints import statistics_of

CORNERS = 3  # of a triangle


def corners_of(names: Sequence[str], groups: Mapping[str, str], label: str) -> list[str]:
    """The networks of a group that a landscape joins: the first three, or two."""
    return [name for name in names if groups[name] == label][:CORNERS]


def landscape(corners: Mapping[str, nn.Module], data: Mapping[str, LabelledData], loss: object) -> Interpolation:
    """The loss over the triangle of three networks, or along the line between two.

    BatchNorm statistics are recalibrated at each point, since interpolated statistics belong to no network. Statistics
    of other normalization layers are interpolated.

    Raises:
        ValueError: for fewer than two networks, or networks that differ in shape or data.
    """
    reason = not_alike(corners, data)
    if reason:
        raise ValueError(reason)
    first = next(iter(corners))
    risk = EmpiricalRisk(corners[first], data[first], loss)
    policy: Literal["recalibrate", "interpolate"] | None = "interpolate" if statistics_of(risk) else None
    if risk.network.batch_normalised:
        policy = "recalibrate"
    points = simplex(3) if len(corners) == CORNERS else segment()
    return interpolate(risk, list(corners.values()), points, batch_norm=policy)


def not_alike(corners: Mapping[str, nn.Module], data: Mapping[str, LabelledData]) -> str:
    """The reason for which these networks have no landscape, or an empty string."""
    names = ", ".join(corners)
    if len(corners) < 2:
        return f"a landscape needs a group of two networks, got {names or 'none'}. Give groups="
    if len({_shapes(model) for model in corners.values()}) > 1:
        return f"a landscape needs networks whose weights have the same shapes, which {names} do not have"
    if len({data[name].fingerprint for name in corners}) > 1:
        return f"a landscape needs networks on the same data, which {names} do not have"
    return ""


def _shapes(model: nn.Module) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(value.shape)) for name, value in Network(model).weights.items())
