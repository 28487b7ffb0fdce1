"""Probes of one network on its data at their defaults, by the names of their records, for comparisons."""

from collections.abc import Callable

from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.probes.adversarial import adversarial_accuracy
from flatprobe.probes.flatness import flatness_radius
from flatprobe.probes.geometric import geometric_margins
from flatprobe.probes.gradient_noise import gradient_noise
from flatprobe.probes.hessian_eigenvalues import hessian_eigenvalues
from flatprobe.probes.hessian_trace import hessian_trace
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

Probe = Callable[[nn.Module, LabelledData, int], Result]

# Budgets (l2, pixels in [0, 1]) of the adversarial accuracy, which MNIST networks lose within them.
BUDGETS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)

MINIBATCH = 128  # of the gradient noise; at most half of the data


def _shape(data: LabelledData) -> tuple[int, ...] | None:
    """The shape of one sample where that is one floating tensor, which a trace needs; else None."""
    first = next(iter(data.batches(1))).inputs
    return data.input_shape if isinstance(first, Tensor) and first.is_floating_point() else None


def _weight_norms(model: nn.Module, data: LabelledData) -> Result:
    """Weight norms, with the path norm where it is known; the record's arguments state which."""
    shape = _shape(data)
    try:
        return weight_norms(model, shape, path=shape is not None)
    except ValueError:  # an operation without a path norm, or an error that recurs without the path norm
        return weight_norms(model, shape, path=False)


# Each probe at its defaults. The slice is a line, since several lines fit into one plot. Geometric margins take the two
# attacks that were best for their time.
PROBES: dict[str, Probe] = {
    "flatness_radius": lambda model, data, seed: flatness_radius(EmpiricalRisk(model, data), seed=seed),
    "flatness_radius_last_layer": lambda model, data, seed: flatness_radius(
        EmpiricalRisk(model, data), parameters="last", seed=seed
    ),
    "random_slice": lambda model, data, seed: random_slice(EmpiricalRisk(model, data), dimensions=1, seed=seed),
    "hessian_eigenvalues": lambda model, data, seed: hessian_eigenvalues(EmpiricalRisk(model, data), seed=seed),
    "hessian_trace": lambda model, data, seed: hessian_trace(EmpiricalRisk(model, data), seed=seed),
    "worst_case_sharpness": lambda model, data, seed: worst_case_sharpness(EmpiricalRisk(model, data), seed=seed),
    "gradient_noise": lambda model, data, seed: gradient_noise(
        EmpiricalRisk(model, data), batch_size=min(MINIBATCH, max(1, len(data) // 2)), seed=seed
    ),
    "weight_norms": lambda model, data, _seed: _weight_norms(model, data),
    "functional_margins": lambda model, data, _seed: functional_margins(model, data),
    "scores": lambda model, data, _seed: scores(model, data),
    "geometric_margins": lambda model, data, seed: geometric_margins(
        model, data, upper=("ddn", "log_barrier"), seed=seed
    ),
    "jacobian_norms": lambda model, data, _seed: jacobian_norms(model, data),
    "jacobian_maximum": lambda model, data, seed: jacobian_maximum(model, data, along="segments", seed=seed),
    "gaussian_robustness": lambda model, data, seed: gaussian_robustness(model, data, seed=seed),
    "smoothed_certificate": lambda model, data, seed: smoothed_certificate(model, data, seed=seed),
    "adversarial_accuracy": lambda model, data, seed: adversarial_accuracy(model, data, budgets=BUDGETS, seed=seed),
}
LANDSCAPE = "landscape"
CHOICES = (*PROBES, LANDSCAPE)

# Probes that apply to every classifier at some tens of passes over the data. Norms and certificates need layers of
# known kinds; the other probes take hundreds of passes.
DEFAULT = (
    "flatness_radius",
    "flatness_radius_last_layer",
    "random_slice",
    "hessian_eigenvalues",
    "functional_margins",
    "scores",
    "jacobian_norms",
    "gaussian_robustness",
    LANDSCAPE,
)
