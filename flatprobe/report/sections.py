"""From the results of one measurement to the sections that show them; the kind follows from the results' class."""

from collections.abc import Callable, Mapping
from typing import Any

from flatprobe.bounds import Bound
from flatprobe.plotting import curve, histogram, line, png, radii, triangle
from flatprobe.plotting.names import agreed
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.probes.margins import Margins
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.probes.slices import RandomSlice
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.report import attacks, curvature, single, tables
from flatprobe.report.section import Section
from flatprobe.report.summary import titled
from flatprobe.utils.results import Result

Results = Mapping[str, Any]
Groups = Mapping[str, str] | None


def kind(key: str, results: Mapping[str, Result]) -> type[Result]:
    """The class of a measurement's results.

    Raises:
        ValueError: for no results, results of several classes, or of a class that has no picture.
    """
    kinds = {type(result) for result in results.values()}
    if len(kinds) != 1 or not kinds <= _KINDS.keys():
        found = ", ".join(sorted(own.__name__ for own in kinds)) or "no results"
        expected = ", ".join(own.__name__ for own in _KINDS)
        msg = f"the measurement {key!r} holds {found}; expected results of one class among {expected}"
        raise ValueError(msg)
    return kinds.pop()


def sections(key: str, results: Mapping[str, Result], groups: Groups) -> list[Section]:
    """The sections of one measurement.

    Args:
        key: the measurement's name, from which the titles are made.
        results: by network, or by group for landscapes; all of one class.
        groups: network -> group.

    Returns:
        One section; for landscapes one for the loss and one for the accuracy of triangles, and one for lines.

    Raises:
        ValueError: if the records lack a setting that the section names.
    """
    try:
        return _KINDS[kind(key, results)](titled(key), results, groups)
    except KeyError as error:
        msg = (
            f"the records of the measurement {key!r} lack {error} in their settings; expected a probe's: measure again"
        )
        raise ValueError(msg) from error


def _radii(title: str, results: Results, groups: Groups) -> list[Section]:
    first: FlatnessRadii = next(iter(results.values()))
    law, objective, epsilon = (agreed(results, name) for name in ("law", "objective", "epsilon"))
    sentence = (
        f"How far the weights can move along a random direction ({law} law, {_parameters(results)}) before the "
        f"training {objective} first changes by {epsilon:g}: each point is one of {len(first.radii)} directions, the "
        "box holds their quartiles, an open triangle at the upper edge is a direction that had not left when the "
        "search ended, and a larger radius means a flatter minimum."
    )
    picture = png(radii.draw(results, groups=groups))
    return [
        Section(title, sentence, picture, _alternative("Points and boxes of radii", results), tables.radii(results))
    ]


def _parameters(results: Results) -> str:
    names = agreed(results, "parameters")
    if names is None:
        return "all parameters"
    if isinstance(names, str):
        return "the last layer" if names == "last" else f"the parameters {names}"
    return ", ".join(names) if len(names) <= 2 else f"{len(names)} parameter tensors"


def _landscapes(title: str, results: Results, _groups: Groups) -> list[Section]:
    by_endpoints: dict[int, dict[str, Interpolation]] = {}
    for name, result in results.items():
        by_endpoints.setdefault(result.coefficients.shape[1], {})[name] = result
    found: list[Section] = []
    for endpoints, own in sorted(by_endpoints.items(), reverse=True):
        found += _lines(title, own) if endpoints == 2 else _triangles(title, own)
    return found


def _triangles(title: str, results: Results) -> list[Section]:
    contours = (
        "Training loss at the combinations a w₁ + b w₂ + c w₃ (a + b + c = 1) of three trained networks' weights, "
        "which are the corners in the order given, with the same logarithmic colours in every panel: dark between "
        "bright corners is a barrier that separates the networks."
    )
    heights = (
        "Training accuracy at the same combinations as the height of a surface over the triangle: a level sheet means "
        "that the networks can be mixed at no cost, a sagging one that accuracy is lost between them."
    )
    words = _alternative("Triangles of loss", results)
    loss = Section(f"{title}: loss", contours, png(triangle.draw_row(results)), words, tables.landscapes(results))
    words = _alternative("Surfaces of accuracy", results)
    surfaces = png(triangle.draw_row(results, quantity="accuracy", surface=True))
    return [loss, Section(f"{title}: accuracy", heights, surfaces, words)]


def _lines(title: str, results: Results) -> list[Section]:
    sentence = (
        "Training loss on the straight line between two trained networks' weights: the arrow is the barrier, the "
        "loss's largest excess over the straight line between its values at the ends, and no barrier means that the "
        "networks lie in one basin."
    )
    picture = png(line.draw(results))
    words = _alternative("Curves of loss", results)
    return [Section(f"{title}: line", sentence, picture, words, tables.landscapes(results))]


def _margins(title: str, results: Results, groups: Groups) -> list[Section]:
    if next(iter(results.values())).settings["probe"] == "scores":
        what = (
            f"√2 times the smallest lead of the true class's output over another class's ({agreed(results, 'outputs')} "
            "outputs, on which √2 is the most), for every sample"
        )
        scale = "a surer one lies further right"
    else:
        what = "The true class's logit minus the largest other logit, for every sample"
        scale = "a surer one lies further right, on a scale that grows with the last layer's weights"
    sentence = f"{what}: a sample left of 0 is misclassified, and {scale}."
    picture = png(histogram.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Histograms", results), tables.samples(results))]


def _jacobian(title: str, results: Results, groups: Groups) -> list[Section]:
    norm = agreed(results, "norm")
    meaning = {
        "spectral": "the most that the output moves for a small step of the input",
        "frobenius": "the size of all its slopes together",
    }
    sentence = (
        f"The {norm} norm of the Jacobian of the {agreed(results, 'outputs')} with respect to the input, for every "
        f"sample: {meaning[norm]}, so smaller is smoother."
    )
    picture = png(histogram.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Histograms", results), tables.samples(results))]


def _robustness(title: str, results: Results, groups: Groups) -> list[Section]:
    first: Robustness = next(iter(results.values()))
    sentence = (
        "The fraction of samples misclassified when Gaussian noise is added to the inputs, against the noise's "
        f"standard deviation, as the mean over {first.error.shape[1]} draws with {tables.fresh_band(results)}: "
        "a curve that rises later belongs to a more robust network."
    )
    picture = png(curve.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Curves", results), tables.errors(results))]


def _smoothing(title: str, results: Results, groups: Groups) -> list[Section]:
    sigma, alpha, draws = (agreed(results, name) for name in ("sigma", "alpha", "draws"))
    sentence = (
        "The fraction of samples that the smoothed classifier, a vote of the network's answers under Gaussian noise of "
        f"standard deviation {sigma:g}, answers rightly and provably so within an l2 radius, with "
        f"{tables.fresh_band(results)}. It abstains where {draws:,} draws prove no majority; a radius may be wrong "
        f"with probability {alpha:g}. The radii belong to the vote, not to the network: they say nothing of the "
        "network's own answers."
    )
    picture = png(curve.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Curves", results), tables.certificates(results))]


def _alternative(what: str, results: Results) -> str:
    return f"{what} of {', '.join(results)}"


# In the order of the page: the weights' space first, then the inputs'.
_KINDS: dict[type[Result], Callable[[str, Results, Groups], list[Section]]] = {
    FlatnessRadii: _radii,
    Interpolation: _landscapes,
    RandomSlice: curvature.slices,
    HessianEigenvalues: curvature.eigenvalues,
    HessianTrace: curvature.trace,
    WorstCaseSharpness: curvature.worst,
    GradientNoise: curvature.noise,
    WeightNorms: single.weights,
    Margins: _margins,
    JacobianNorms: _jacobian,
    JacobianMaximum: single.maximum,
    Robustness: _robustness,
    SmoothedCertificate: _smoothing,
    Bound: single.bound,
    GeometricMargins: attacks.margin_sections,
    AdversarialAccuracy: attacks.accuracy_sections,
}
ORDER = tuple(_KINDS)
