"""Probes by name, as functions of model, data and JSON arguments, for the measurements of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.probes.adversarial import adversarial_accuracy
from flatprobe.probes.adversarial_points import adversarial_points
from flatprobe.probes.coefficients import segment, simplex
from flatprobe.probes.flatness import flatness_radius
from flatprobe.probes.geometric import geometric_margins
from flatprobe.probes.gradient_noise import gradient_noise
from flatprobe.probes.hessian_eigenvalues import hessian_eigenvalues
from flatprobe.probes.hessian_trace import hessian_trace
from flatprobe.probes.interpolation import interpolate
from flatprobe.probes.jacobian import jacobian_norms
from flatprobe.probes.jacobian_maximum import jacobian_maximum
from flatprobe.probes.margins import functional_margins, scores
from flatprobe.probes.robustness import gaussian_robustness
from flatprobe.probes.sharpness import worst_case_sharpness
from flatprobe.probes.slices import random_slice
from flatprobe.probes.smoothing import smoothed_certificate
from flatprobe.probes.weight_norms import weight_norms
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.utils.results import Result

Probe = Callable[..., Result | Mapping[str, Any] | Any]


def _risk(model: nn.Module, data: LabelledData, **arguments: Any) -> dict[str, float]:
    return EmpiricalRisk(model, data, **arguments)().figures()


def _on_risk(probe: Callable[..., Result]) -> Probe:
    """A probe of the weights as a function of model and data."""

    def measure(model: nn.Module, data: LabelledData, *, loss: Any = "cross_entropy", **arguments: Any) -> Result:
        return probe(EmpiricalRisk(model, data, loss), **arguments)

    return measure


def _interpolate(
    models: Sequence[nn.Module], data: LabelledData, *, steps: int = 20, loss: Any = "cross_entropy", **arguments: Any
) -> Result:
    """The landscape between two networks, or over the triangle of three."""
    points = segment(steps) if len(models) == 2 else simplex(len(models), steps)
    return interpolate(EmpiricalRisk(models[0], data, loss), list(models), points, **arguments)


_OF_WEIGHTS: tuple[Callable[..., Result], ...] = (
    flatness_radius,
    gradient_noise,
    hessian_eigenvalues,
    hessian_trace,
    random_slice,
    worst_case_sharpness,
)
PROBES: dict[str, Probe] = {
    "risk": _risk,
    **{probe.__name__: _on_risk(probe) for probe in _OF_WEIGHTS},
    "adversarial_accuracy": adversarial_accuracy,
    "adversarial_points": adversarial_points,
    "functional_margins": functional_margins,
    "gaussian_robustness": gaussian_robustness,
    "geometric_margins": geometric_margins,
    "jacobian_maximum": jacobian_maximum,
    "jacobian_norms": jacobian_norms,
    "scores": scores,
    "smoothed_certificate": smoothed_certificate,
    "weight_norms": weight_norms,
}
JOINT: dict[str, Probe] = {"interpolate": _interpolate}


def arguments_of(name: str) -> set[str]:
    """The arguments that a measurement of this probe may have.

    >>> sorted(arguments_of("scores"))
    ['batch_size', 'outputs']
    """
    if name == "risk":
        return {"loss", "batch_size"}
    by_name: dict[str, Probe] = {probe.__name__: probe for probe in (*_OF_WEIGHTS, interpolate)}
    probe = by_name[name] if name in by_name else PROBES[name]
    own = {
        parameter.name for parameter in signature(probe).parameters.values() if parameter.kind is Parameter.KEYWORD_ONLY
    }
    return own | ({"loss"} if name in by_name else set()) | ({"steps"} if name in JOINT else set())
