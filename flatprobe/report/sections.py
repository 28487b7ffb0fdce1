"""Report sections of measurements, chosen by the class of their results."""

from collections.abc import Iterator, Mapping

from flatprobe.bounds import Bound
from flatprobe.plotting import has_picture, interactive
from flatprobe.plotting.canvas import svg
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
from flatprobe.report import input_space, weight_space
from flatprobe.report.alternative import alternative
from flatprobe.report.kind import Groups, Kind, Results
from flatprobe.report.section import Panel, Section, inline
from flatprobe.utils.results import Result

_EQUAL_LOSS = "_equal_loss"

# In the order of the page: generalization, weight space, input space.
_KINDS: dict[type[Result], Kind | None] = {
    Generalization: input_space.GENERALIZATION,
    FlatnessRadii: weight_space.RADII,
    WeightNorms: weight_space.WEIGHTS,
    Interpolation: None,
    RandomSlice: None,
    HessianEigenvalues: weight_space.EIGENVALUES,
    HessianTrace: weight_space.TRACE,
    WorstCaseSharpness: weight_space.WORST,
    GradientNoise: weight_space.NOISE,
    Margins: None,
    JacobianNorms: input_space.JACOBIAN,
    JacobianMaximum: input_space.MAXIMUM,
    Robustness: input_space.ROBUSTNESS,
    SmoothedCertificate: input_space.SMOOTHED,
    GeometricMargins: input_space.DISTANCES,
    AdversarialAccuracy: input_space.ACCURACY,
    Bound: input_space.BOUND,
}
ORDER = tuple(_KINDS)


def make_title(key: str) -> str:
    """Key of a measurement as a title.

    >>> make_title("flatness_radius (top layer)")
    'Flatness radius (top layer)'
    """
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]


def in_order(records: Mapping[str, Mapping[str, Result]]) -> dict[str, Mapping[str, Result]]:
    """The measurements in the order of the page, each beside its repetition at equal loss."""
    keys = list(records)

    def place(key: str) -> tuple[int, int, bool]:
        base = key.removesuffix(_EQUAL_LOSS)
        own = kind(key, records[key])
        position = ORDER.index(own) if own in ORDER else len(ORDER)
        return position, keys.index(base if base in records else key), key != base

    return {key: records[key] for key in sorted(records, key=place)}


def kind(key: str, results: Mapping[str, Result]) -> type[Result]:
    """Class of the results of a measurement.

    A class without a section and without a picture, such as that of a probe function, has a table of its summary.

    Raises:
        ValueError: for no results, results of several classes, or a class with a picture and without a section.
    """
    kinds = {type(result) for result in results.values()}
    if len(kinds) != 1 or (not kinds <= _KINDS.keys() and has_picture(results)):
        found = ", ".join(sorted(own.__name__ for own in kinds)) or "no results"
        expected = ", ".join(own.__name__ for own in _KINDS)
        msg = f"the measurement {key!r} holds {found}; expected results of one class among {expected}"
        raise ValueError(msg)
    return kinds.pop()


def sections(records: Mapping[str, Mapping[str, Result]], groups: Groups, *, live: bool = False) -> list[Section]:
    """Sections of all measurements; those that share their description share a section.

    Args:
        records: measurement -> network -> result, or group -> result for landscapes.
        groups: network -> group.
        live: whether planes and triangles are drawn interactively too.

    Returns:
        The sections in the order of the page.

    Raises:
        ValueError: if the records lack a setting that a section needs.
    """
    found: dict[str, tuple[Kind, list[tuple[str, Panel]]]] = {}
    for key, results in in_order(records).items():
        try:
            for own, part in _parts(key, results):
                panel = _panel(own, key, part, groups, live=live)
                found.setdefault(own.sentence(part), (own, []))[1].append((make_title(key) + own.suffix, panel))
        except KeyError as error:
            msg = (
                f"the records of the measurement {key!r} lack {error} in their settings; expected a probe's: measure "
                "again"
            )
            raise ValueError(msg) from error
    return [
        Section(panels[0][0] if len(panels) == 1 else own.title, sentence, tuple(panel for _, panel in panels))
        for sentence, (own, panels) in found.items()
    ]


def _parts(key: str, results: Results) -> Iterator[tuple[Kind, Results]]:
    """Kinds of section of one measurement; lines and triangles, and lines and planes, are drawn apart."""
    own = kind(key, results)
    if own is Interpolation:
        triangles = {name: result for name, result in results.items() if result.coefficients.shape[1] != 2}
        lines = {name: result for name, result in results.items() if name not in triangles}
        heights = {name: result for name, result in triangles.items() if has_error(result)}
        pairs = ((weight_space.TRIANGLES, triangles), (weight_space.SURFACES, heights))
        yield from ((each, own) for each, own in pairs if own)
        yield from ((each, lines) for each in (weight_space.LINES,) if lines)
    elif own is RandomSlice:
        for dimensions, each in ((1, weight_space.LINE_SLICES), (2, weight_space.PLANE_SLICES)):
            part = {name: result for name, result in results.items() if result.loss.ndim == dimensions}
            if part:
                yield each, part
    elif own is Margins:
        first = next(iter(results.values()))
        yield input_space.SCORES if first.settings["probe"] == "scores" else input_space.MARGINS, results
    else:
        found = _KINDS.get(own, input_space.OTHER)
        assert found is not None
        yield found, results


def _panel(own: Kind, key: str, results: Results, groups: Groups, *, live: bool) -> Panel:
    name = make_title(key) + own.suffix
    particulars = own.particulars(results)
    return Panel(
        name=name,
        caption=f"{name}: {particulars}" if particulars else name,
        picture=inline(svg(own.picture(results, groups))) if has_picture(results) else "",
        alternative=alternative(own, results, groups),
        table=own.table(results),
        live=interactive.html(results, quantity=own.live) if live and own.live else "",
    )
