"""Pictures of results: `draw(results, ax=None)`. No room below imports matplotlib.

Each module draws one kind of picture. Its `draw` takes one result, or a mapping of names to results of one class, and
an optional mapping of names to groups: networks of one group share a colour and differ by line and marker. Figures
are made without pyplot, so that neither the backend nor the settings of the caller change.
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
    histogram,
    history,
    line,
    radii,
    regions,
    sharpness,
    slices,
    triangle,
    weight_norms,
)
from flatprobe.plotting.canvas import png
from flatprobe.plotting.history import History
from flatprobe.probes.decision_regions import DecisionRegions
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.generalization import Generalization
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.interpolation import Interpolation
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
    "histogram",
    "history",
    "line",
    "png",
    "radii",
    "regions",
    "sharpness",
    "slices",
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
