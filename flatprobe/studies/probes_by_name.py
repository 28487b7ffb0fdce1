"""Probes by name, as functions of model, data and JSON arguments, and their arguments in a comparison."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.probes.adversarial import adversarial_accuracy
from flatprobe.probes.adversarial_points import adversarial_points
from flatprobe.probes.coefficients import segment, simplex
from flatprobe.probes.flatness import flatness_radius
from flatprobe.probes.generalization import generalization
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

MINIBATCH = 128  # of the gradient noise
# Budgets (l2, pixels in [0, 1]) of the adversarial accuracy, which MNIST networks lose within them.
BUDGETS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


def _risk(model: nn.Module, data: LabelledData, **arguments: Any) -> dict[str, float]:
    return EmpiricalRisk(model, data, **arguments)().figures()


def _on_risk(probe: Callable[..., Result]) -> Probe:
    """A probe of the weights as a function of model and data."""

    def measure(model: nn.Module, data: LabelledData, *, loss: Any = "cross_entropy", **arguments: Any) -> Result:
        return probe(EmpiricalRisk(model, data, loss), **arguments)

    return measure


def _gradient_noise(
    model: nn.Module, data: LabelledData, *, loss: Any = "cross_entropy", batch_size: int | None = None, **options: Any
) -> Result:
    """Gradient noise of minibatches of `MINIBATCH`, or of half of the data where these are few."""
    size = min(MINIBATCH, max(1, len(data) // 2)) if batch_size is None else batch_size
    return gradient_noise(EmpiricalRisk(model, data, loss), batch_size=size, **options)


def _weight_norms(model: nn.Module, data: LabelledData, *, path: bool | None = None) -> Result:
    """Weight norms; without `path`, with the path norm where it is known. The record's arguments state which."""
    first = next(iter(data.batches(1))).inputs
    shape = data.input_shape if isinstance(first, Tensor) and first.is_floating_point() else None
    if path is not None:
        return weight_norms(model, shape, path=path)
    try:
        return weight_norms(model, shape, path=shape is not None)
    except ValueError:  # an operation without a path norm, or an error that recurs without the path norm
        return weight_norms(model, shape, path=False)


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
    "gradient_noise": _gradient_noise,
    "generalization": generalization,
    "adversarial_accuracy": adversarial_accuracy,
    "adversarial_points": adversarial_points,
    "functional_margins": functional_margins,
    "gaussian_robustness": gaussian_robustness,
    "geometric_margins": geometric_margins,
    "jacobian_maximum": jacobian_maximum,
    "jacobian_norms": jacobian_norms,
    "scores": scores,
    "smoothed_certificate": smoothed_certificate,
    "weight_norms": _weight_norms,
}
JOINT: dict[str, Probe] = {"interpolate": _interpolate}

# Measurements of a comparison: name -> probe and its arguments, where they are not the probe's own defaults. The slice
# is a line, since several lines fit into one picture. Geometric margins take the attack that is best for its time.
_COMPARED: dict[str, dict[str, Any]] = {
    "random_slice": {"dimensions": 1},
    "geometric_margins": {"upper": ["ddn"]},
    "jacobian_maximum": {"along": "segments"},
    "adversarial_accuracy": {"budgets": list(BUDGETS)},
}
NAMED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "generalization": ("generalization", {}),
    "flatness_radius": ("flatness_radius", {}),
    "flatness_radius_adaptive": ("flatness_radius", {"law": "adaptive"}),
    "flatness_radius_last_layer": ("flatness_radius", {"parameters": "last"}),
    **{
        name: (name, _COMPARED.get(name, {}))
        for name in (
            "random_slice", "hessian_eigenvalues", "hessian_trace", "worst_case_sharpness", "gradient_noise",
            "weight_norms", "functional_margins", "scores", "geometric_margins", "jacobian_norms", "jacobian_maximum",
            "gaussian_robustness", "smoothed_certificate", "adversarial_accuracy",
        )
    },
}  # fmt: skip
LANDSCAPE = "landscape"
CHOICES = (*NAMED, LANDSCAPE)


def compared(probe: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a probe in a comparison, with those that a comparison gives where none are given."""
    return {**_COMPARED.get(probe, {}), **arguments}


def measure_named(name: str, model: nn.Module, data: LabelledData, seed: int) -> Any:
    """The result of a measurement of `NAMED`."""
    probe, arguments = NAMED[name]
    seeded = {"seed": seed} if "seed" in arguments_of(probe) else {}
    return PROBES[probe](model, data, **arguments, **seeded)


def arguments_of(name: str) -> set[str]:
    """The arguments that a measurement of this probe may have.

    >>> sorted(arguments_of("scores"))
    ['batch_size', 'outputs']
    """
    if name == "risk":
        return {"loss", "batch_size"}
    by_name: dict[str, Probe] = {probe.__name__: probe for probe in (*_OF_WEIGHTS, interpolate)}
    probe = by_name.get(name, PROBES.get(name))
    assert probe is not None
    own = {
        parameter.name for parameter in signature(probe).parameters.values() if parameter.kind is Parameter.KEYWORD_ONLY
    }
    of_weights = {probe.__name__ for probe in (*_OF_WEIGHTS, interpolate)}
    return own | ({"loss"} if name in of_weights else set()) | ({"steps"} if name in JOINT else set())
