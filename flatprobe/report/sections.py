"""Report sections of a measurement, chosen by the class of its results."""

from collections.abc import Callable, Mapping
from typing import Any

from flatprobe.bounds import Bound
from flatprobe.plotting import curve, histogram, line, png, radii, triangle
from flatprobe.plotting.names import common
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.generalization import Generalization
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
from flatprobe.probes.surfaces import has_error
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.report import attacks, curvature, generalization, single, tables
from flatprobe.report.section import Section
from flatprobe.report.summary import make_title
from flatprobe.utils.results import Result

Results = Mapping[str, Any]
Groups = Mapping[str, str] | None


def kind(key: str, results: Mapping[str, Result]) -> type[Result]:
    """Class of the results of a measurement.

    Raises:
        ValueError: for no results, results of several classes, or a class without a section.
    """
    kinds = {type(result) for result in results.values()}
    if len(kinds) != 1 or not kinds <= _KINDS.keys():
        found = ", ".join(sorted(own.__name__ for own in kinds)) or "no results"
        expected = ", ".join(own.__name__ for own in _KINDS)
        msg = f"the measurement {key!r} holds {found}; expected results of one class among {expected}"
        raise ValueError(msg)
    return kinds.pop()


def sections(key: str, results: Mapping[str, Result], groups: Groups) -> list[Section]:
    """Sections of one measurement.

    Args:
        key: name of the measurement, from which the titles are made.
        results: network -> result, or group -> result for landscapes; all of one class.
        groups: network -> group.

    Returns:
        One section; landscapes have one for the loss and one for the accuracy of triangles, and one for lines.

    Raises:
        ValueError: if the records lack a setting that the section needs.
    """
    try:
        return _KINDS[kind(key, results)](make_title(key), results, groups)
    except KeyError as error:
        msg = (
            f"the records of the measurement {key!r} lack {error} in their settings; expected a probe's: measure again"
        )
        raise ValueError(msg) from error


def _radii(title: str, results: Results, groups: Groups) -> list[Section]:
    first: FlatnessRadii = next(iter(results.values()))
    law, objective, epsilon = (common(results, name) for name in ("law", "objective", "epsilon"))
    sentence = (
        f"The distance that the weights can move along a random direction ({law} law, {_parameters(results)}) before "
        f"the training {objective} first changes by {epsilon:g}. Each point is one of {len(first.radii)} directions, "
        "and the box shows their quartiles. An open triangle at the upper edge is a direction without such a change "
        "before the search ended. A larger radius means a flatter minimum."
    )
    picture = png(radii.draw(results, groups=groups))
    return [
        Section(title, sentence, picture, _alternative("Points and boxes of radii", results), tables.radii(results))
    ]


def _parameters(results: Results) -> str:
    names = common(results, "parameters")
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
        "Training loss at the combinations a w₁ + b w₂ + c w₃ (a + b + c = 1) of the weights of three trained "
        "networks, which are the corners in the given order. All panels have the same logarithmic colours. A dark "
        "area between bright corners is a barrier that separates the networks."
    )
    heights = (
        "Training accuracy at the same combinations as the height of a surface over the triangle. A level surface "
        "means that the networks can be mixed without loss, a sagging surface that accuracy is lost between them."
    )
    words = _alternative("Triangles of loss", results)
    loss = Section(f"{title}: loss", contours, png(triangle.draw_row(results)), words, tables.landscapes(results))
    if not all(map(has_error, results.values())):
        return [loss]
    words = _alternative("Surfaces of accuracy", results)
    surfaces = png(triangle.draw_row(results, quantity="accuracy", surface=True))
    return [loss, Section(f"{title}: accuracy", heights, surfaces, words)]


def _lines(title: str, results: Results) -> list[Section]:
    sentence = (
        "Training loss on the straight line between the weights of two trained networks. The arrow is the barrier, the "
        "largest excess of the loss over the straight line between its values at the two networks. Without a barrier "
        "the networks are in one basin."
    )
    picture = png(line.draw(results))
    words = _alternative("Curves of loss", results)
    return [Section(f"{title}: line", sentence, picture, words, tables.landscapes(results))]


def _margins(title: str, results: Results, groups: Groups) -> list[Section]:
    if next(iter(results.values())).settings["probe"] == "scores":
        what = (
            f"√2 times the smallest lead of the true class's output over another class's, per sample "
            f"({common(results, 'outputs')} outputs, for which √2 is the maximum)"
        )
        scale = "a more certain sample is further right"
    else:
        what = "The true class's logit minus the largest other logit, per sample"
        scale = "a more certain sample is further right, on a scale that grows with the last layer's weights"
    sentence = f"{what}. A sample left of 0 is misclassified; {scale}."
    picture = png(histogram.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Histograms", results), tables.samples(results))]


def _jacobian(title: str, results: Results, groups: Groups) -> list[Section]:
    norm = common(results, "norm")
    meaning = {
        "spectral": "the largest change of the output per small step of the input",
        "frobenius": "the size of all slopes together",
    }
    sentence = (
        f"The {norm} norm of the Jacobian of the {common(results, 'outputs')} with respect to the input, per sample: "
        f"{meaning[norm]}. Smaller is smoother."
    )
    picture = png(histogram.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Histograms", results), tables.samples(results))]


def _robustness(title: str, results: Results, groups: Groups) -> list[Section]:
    first: Robustness = next(iter(results.values()))
    sentence = (
        "The fraction of samples misclassified when Gaussian noise is added to the inputs, against the noise's "
        f"standard deviation, as the mean over {first.error.shape[1]} draws with {tables.fresh_band(results)}. "
        "A curve that rises later belongs to a more robust network."
    )
    picture = png(curve.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Curves", results), tables.errors(results))]


def _smoothing(title: str, results: Results, groups: Groups) -> list[Section]:
    sigma, alpha, draws = (common(results, name) for name in ("sigma", "alpha", "draws"))
    sentence = (
        "The fraction of samples whose class the smoothed classifier, a vote of the network under Gaussian noise of "
        f"standard deviation {sigma:g}, predicts correctly and provably within an l2 radius, with "
        f"{tables.fresh_band(results)}. It abstains where {draws:,} draws prove no majority. A radius is wrong "
        f"with probability at most {alpha:g}. The radii belong to the vote, not to the network: they do not bound the "
        "predictions of the network itself."
    )
    picture = png(curve.draw(results, groups=groups))
    return [Section(title, sentence, picture, _alternative("Curves", results), tables.certificates(results))]


def _alternative(what: str, results: Results) -> str:
    return f"{what} of {', '.join(results)}"


# In the order of the page: generalization, then weight space, then input space.
_KINDS: dict[type[Result], Callable[[str, Results, Groups], list[Section]]] = {
    Generalization: generalization.section,
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
