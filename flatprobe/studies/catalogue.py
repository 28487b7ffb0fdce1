"""Catalogue of the measurements of a comparison: question, cost and needs of each, and an estimate of its passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from flatprobe.probes.adversarial import adversarial_accuracy
from flatprobe.probes.flatness import flatness_radius
from flatprobe.probes.geometric import geometric_margins
from flatprobe.probes.gradient_noise import gradient_noise
from flatprobe.probes.hessian_eigenvalues import hessian_eigenvalues
from flatprobe.probes.hessian_trace import hessian_trace
from flatprobe.probes.jacobian_maximum import jacobian_maximum
from flatprobe.probes.robustness import gaussian_robustness
from flatprobe.probes.sharpness import worst_case_sharpness
from flatprobe.probes.slices import random_slice
from flatprobe.probes.smoothing import smoothed_certificate
from flatprobe.studies.chosen import Chosen

# Hessian products and evaluations are adaptive: these are the means on the networks of `python -m tests.benchmarks`.
_EVALUATIONS = 5.0  # per direction of a radius, 3.8 to 5.8
_PRODUCTS = 15.0  # of the Hessian per eigenvalue
_GRADIENTS = 3.0  # per Hessian product, 2 to 4
_ATTACKS = {"ddn": 50.0, "log_barrier": 80.0, "deepfool": 30.0, "fab": 40.0, "ifgsm": 20.0}  # gradients per attack


@dataclass(frozen=True)
class Passes:
    """Passes over the data: forward passes alone, and gradients (a forward and a backward pass)."""

    forward: float = 0.0
    gradients: float = 0.0


Cost = Callable[[Mapping[str, Any], int, int], Passes]  # of (arguments, samples, classes)


@dataclass(frozen=True)
class Entry:
    """Question of a measurement, its cost in words, its needs, and its passes."""

    question: str
    cost: str
    needs: str
    passes: Cost


def _radius(a: Mapping[str, Any], _samples: int, _classes: int) -> Passes:
    return Passes(forward=1 + a["directions"] * (_EVALUATIONS + a["verify"]))


def _eigenvalues(a: Mapping[str, Any], _samples: int, _classes: int) -> Passes:
    return Passes(gradients=a["count"] * _PRODUCTS * _GRADIENTS)


def _attacks(a: Mapping[str, Any], _samples: int, classes: int) -> Passes:
    upper = [a["upper"]] if isinstance(a["upper"], str) else a["upper"]
    lower = [a["lower"]] if isinstance(a["lower"], str) else a["lower"]
    slopes = classes * a["points"] if {"gamma_1", "gradient"} & {*lower} else 0
    return Passes(2, sum(8 + _ATTACKS.get(name, 50.0) for name in upper) + slopes)


def _noise(a: Mapping[str, Any], samples: int, _classes: int) -> Passes:
    return Passes(gradients=1 + a["draws"] * min(a["batch_size"], samples) / max(1, samples))


def _segments(a: Mapping[str, Any], samples: int, classes: int) -> Passes:
    points = (a["points"] + a["refine"]) * (a["pairs"] if a["along"] == "segments" else samples)
    return Passes(gradients=points * classes / max(1, samples))


def _adversarial(a: Mapping[str, Any], _samples: int, _classes: int) -> Passes:
    moved = sum(budget > 0 for budget in a["budgets"])
    return Passes(1 + moved, moved * (1 if a["attack"] == "fgsm" else a["restarts"] * (a["steps"] + 1)))


_WEIGHTS, _INPUTS, _LAYERS = "any loss", "a classifier, one floating input", "layers of known kinds"
_ONE: Cost = lambda _a, _samples, _classes: Passes(forward=1)  # noqa: E731 - one line a cost

CATALOGUE: dict[str, Entry] = {
    "generalization": Entry(
        "loss and accuracy on training and test samples, and their gap", "1 pass per split", _WEIGHTS,
        lambda _a, _samples, _classes: Passes(forward=2),
    ),
    "flatness_radius": Entry(
        "how far the weights move along random directions before the loss changes by epsilon",
        "about 5 passes per direction", _WEIGHTS, _radius,
    ),
    "random_slice": Entry(
        "the loss along a random line or plane", "21 passes for a line, 441 for a plane", _WEIGHTS,
        lambda a, _samples, _classes: Passes(forward=a["steps"] ** a["dimensions"]),
    ),
    "hessian_eigenvalues": Entry(
        "the largest curvature of the loss", "about 15 Hessian products", _WEIGHTS, _eigenvalues
    ),
    "hessian_trace": Entry(
        "the sum of all curvatures of the loss", "100 Hessian products", _WEIGHTS,
        lambda a, _samples, _classes: Passes(gradients=2 * a["draws"]),
    ),
    "worst_case_sharpness": Entry(
        "the largest increase of the loss near the weights", "63 gradients", _WEIGHTS,
        lambda a, _samples, _classes: Passes(gradients=a["restarts"] * (a["steps"] + 1)),
    ),
    "gradient_noise": Entry(
        "how the gradients of minibatches scatter", "1 gradient, and 200 of minibatches", _WEIGHTS,
        _noise,
    ),
    "weight_norms": Entry(
        "the norms of weights and layers", "no pass", _LAYERS, lambda _a, _samples, _classes: Passes()
    ),
    "functional_margins": Entry("how far the logits are from another class", "1 pass", "a classifier", _ONE),
    "scores": Entry("the same for the softmax", "1 pass", "a classifier", _ONE),
    "geometric_margins": Entry(
        "how far an input moves before its class changes: certified and found distance",
        "about 60 gradients per attack", _INPUTS, _attacks,
    ),
    "jacobian_norms": Entry(
        "how steep the logits are at the samples", "1 gradient per class", _INPUTS,
        lambda _a, _samples, classes: Passes(1, classes),
    ),
    "jacobian_maximum": Entry(
        "the steepest point found between samples", "1,700 Jacobians", _INPUTS, _segments
    ),
    "gaussian_robustness": Entry(
        "the error under Gaussian noise on the inputs", "10 passes per noise level", _INPUTS,
        lambda a, _samples, _classes: Passes(forward=1 + a["draws"] * len(a["gammas"])),
    ),
    "smoothed_certificate": Entry(
        "certified radii of a vote under noise", "1,100 passes", _INPUTS,
        lambda a, _samples, _classes: Passes(forward=a["draws"] + a["selection"]),
    ),
    "adversarial_accuracy": Entry(
        "the accuracy under an attack of each size", "steps + 1 gradients per budget", _INPUTS, _adversarial
    ),
    "landscape": Entry(
        "the loss between the networks of a group", "231 passes for three networks, 21 for two",
        "networks of one shape", lambda _a, _samples, _classes: Passes(forward=231),
    ),
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    own.__name__: own
    for own in (
        adversarial_accuracy, flatness_radius, geometric_margins, gradient_noise, hessian_eigenvalues, hessian_trace,
        jacobian_maximum, gaussian_robustness, worst_case_sharpness, random_slice, smoothed_certificate,
    )
}  # fmt: skip


def passes_of(chosen: Chosen, samples: int, classes: int) -> Passes | None:
    """The estimated passes of a measurement over the data; None for a function, whose cost is not known."""
    if chosen.function is not None or chosen.probe not in CATALOGUE:
        return None
    function = _FUNCTIONS.get(chosen.probe)
    defaults = {} if function is None else {p.name: p.default for p in signature(function).parameters.values()}
    return CATALOGUE[chosen.probe].passes({**defaults, **chosen.arguments}, samples, classes)
