"""Pictures of results: `draw(results, ax=None)`. No room below imports matplotlib.

Each module draws one kind of picture. Its `draw` takes one result, or a mapping of names to results of one class, and
an optional mapping of names to groups: networks of one group share a colour. Up to six networks have a curve each,
and more have a row each, or a band per group. `trajectory` and `heatmap` draw whole comparisons, `interactive` draws
landscapes and slices by plotly. Figures are no figures of pyplot, so that neither the backend nor the settings of the
caller change.
"""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes

from flatprobe.bounds import Bound
from flatprobe.plotting import (
    bounds,
    curve,
    generalization,
    geometric,
    gradient_noise,
    heatmap,
    histogram,
    history,
    interactive,
    line,
    radii,
    regions,
    sharpness,
    slices,
    trajectory,
    triangle,
    weight_norms,
)
from flatprobe.plotting.canvas import png, svg
from flatprobe.plotting.history import History
from flatprobe.probes.decision_regions import DecisionRegions
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.generalization import Generalization
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.probes.slices import RandomSlice
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.utils.results import Result

__all__ = [
    "bounds",
    "curve",
    "draw",
    "generalization",
    "geometric",
    "gradient_noise",
    "has_picture",
    "heatmap",
    "histogram",
    "history",
    "interactive",
    "line",
    "png",
    "radii",
    "regions",
    "sharpness",
    "slices",
    "svg",
    "trajectory",
    "triangle",
    "weight_norms",
]


def draw(
    results: Result | History | Mapping[str, Result] | Mapping[str, History], ax: Axes | None = None, **options: Any
) -> Axes:
    """The picture of one result or training run, or of several of one class by name.

    Args:
        results: what a probe or `fp.train` returned, or a mapping of names to it.
        ax: where to draw; None makes a figure.
        **options: of the `draw` in the module that draws this class, such as `groups` or `quantity`.

    Returns:
        The axes.

    Raises:
        TypeError: for a result of a class that has no picture, or results of several classes.
        ValueError: for no results, or results that cannot share a picture.
    """
    first: object = next(iter(results.values()), None) if isinstance(results, Mapping) else results
    if first is None:
        msg = "there are no results to draw; expected at least one"
        raise ValueError(msg)
    if isinstance(first, History):
        return history.draw(results, ax, **options)  # type: ignore[arg-type]
    if not isinstance(first, Result) or type(first) not in _DRAW:
        msg = f"results must be of a class that has a picture, got {type(first).__name__}"
        raise TypeError(msg)
    return _DRAW[type(first)](results, ax, **options)


def has_picture(results: Result | Mapping[str, Result]) -> bool:
    """True if a picture says more than a table: False for a class without one, and for the one number of one network.

    Args:
        results: what a probe returned, or a mapping of names to it.
    """
    found: list[Any] = list(results.values()) if isinstance(results, Mapping) else [results]
    if not found or type(found[0]) not in _DRAW:
        return False
    if isinstance(found[0], Interpolation) and found[0].coefficients.shape[1] > 3:
        return False
    count = _NUMBERS.get(type(found[0]))
    return len(found) > 1 or count is None or count(found[0]) > 1


def _draw_interpolation(results: Result | Mapping[str, Result], ax: Axes | None, **options: Any) -> Axes:
    first: Any = next(iter(results.values())) if isinstance(results, Mapping) else results
    drawer: Callable[..., Axes] = line.draw if first.coefficients.shape[1] == 2 else triangle.draw
    return drawer(results, ax, **options)


_DRAW: dict[type[Result], Callable[..., Axes]] = {
    **dict.fromkeys(curve.KINDS, curve.draw),
    **dict.fromkeys(histogram.KINDS, histogram.draw),
    **dict.fromkeys(sharpness.KINDS, sharpness.draw),
    Bound: bounds.draw,
    DecisionRegions: regions.draw,
    FlatnessRadii: radii.draw,
    Generalization: generalization.draw,
    GeometricMargins: geometric.draw,
    GradientNoise: gradient_noise.draw,
    Interpolation: _draw_interpolation,
    RandomSlice: slices.draw,
    WeightNorms: weight_norms.draw,
}

# How many numbers the picture of one network has, of the classes that may have one.
_NUMBERS: dict[type[Result], Callable[[Any], int]] = {
    FlatnessRadii: lambda result: len(result.radii),
    Generalization: lambda _: 1,
    HessianEigenvalues: lambda result: len(result.eigenvalues),
    HessianTrace: lambda _: 1,
    WeightNorms: lambda result: len(result.names),
    WorstCaseSharpness: lambda _: 1,
}
