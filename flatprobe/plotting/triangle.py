"""What pictures over the triangle between three networks share: values, colours, corners and panels."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.tri import TriAnalyzer, Triangulation

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption, named
from flatprobe.probes.interpolation import Interpolation
from flatprobe.utils.arguments import one_of

# A mean cross-entropy below this (nats) is beyond float32's accuracy at a loss of order 1, and on a logarithmic scale
# it would take the colours away from everything else.
FLOOR = 1e-6
QUANTITIES = ("loss", "accuracy")
_COLUMNS = 3
# Bright is good in both: the palette is perceptually uniform and survives every common colour vision.
_PALETTES = {"loss": "viridis_r", "accuracy": "viridis"}


def three_points(result: object) -> Interpolation:
    """The result, checked to lie between three networks.

    Raises:
        TypeError: unless it is an `Interpolation`.
        ValueError: for another number of endpoints.
    """
    (interpolation,) = named(result, Interpolation).values()
    endpoints = interpolation.coefficients.shape[1]
    if endpoints != 3:
        cure = "draw two with flatprobe.plotting.line" if endpoints == 2 else "interpolate over fp.simplex(3)"
        msg = f"the landscape lies between {endpoints} endpoints; expected 3, the corners of a triangle: {cure}"
        raise ValueError(msg)
    return interpolation


def finite(result: Interpolation) -> Bool[np.ndarray, " points"]:
    """Where the loss is finite; elsewhere the network's accuracy means nothing either."""
    return result.loss.isfinite().numpy()


@dataclass(frozen=True)
class Scale:
    """One scale of values and colours for every panel: the loss logarithmic, the accuracy linear.

    Attributes:
        quantity: "loss" or "accuracy".
        low: value at the lower end.
        high: value at the upper end.
        floored: whether losses below `FLOOR` are drawn as `FLOOR`.
    """

    quantity: str
    low: float
    high: float
    floored: bool = False

    @classmethod
    def over(cls, results: Iterable[Interpolation], quantity: str) -> "Scale":
        """The scale that holds every finite value of the results.

        Raises:
            ValueError: for an unknown quantity, or if no value is finite.
        """
        one_of("quantity", quantity, QUANTITIES)
        values = np.concatenate([getattr(result, quantity).numpy()[finite(result)] for result in results])
        if len(values) == 0:
            msg = f"no point of the landscape has a finite loss; expected some, to draw the {quantity}"
            raise ValueError(msg)
        low, high = float(values.min()), float(values.max())
        if quantity == "accuracy":
            return cls(quantity, min(low, high - 0.01), high)
        shown = max(low, FLOOR)
        return cls(quantity, shown, max(high, 1.01 * shown), floored=low < FLOOR)

    @property
    def label(self) -> str:
        """What the axis or the colour bar says."""
        if self.quantity == "accuracy":
            return "training accuracy"
        return f"training loss (log scale{f', at least {FLOOR:g}' if self.floored else ''})"

    @property
    def norm(self) -> Normalize:
        """Value -> [0, 1]."""
        return (LogNorm if self.quantity == "loss" else Normalize)(self.low, self.high)

    @property
    def levels(self) -> Float[np.ndarray, " levels"]:
        """Where the contours lie."""
        spaced = np.geomspace if self.quantity == "loss" else np.linspace
        levels = spaced(self.low, self.high, 25)
        # Rounding in the powers must not push an extreme value out of the outermost contour.
        levels[[0, -1]] = self.low, self.high
        return levels

    @property
    def palette(self) -> str:
        """The colour map."""
        return _PALETTES[self.quantity]

    def values(self, result: Interpolation) -> Float[np.ndarray, " points"]:
        """The quantity at each point, inside the scale; the lower end stands where it is not finite (see `finite`)."""
        values = np.where(finite(result), getattr(result, self.quantity).numpy(), self.low)
        return values.clip(self.low, self.high)

    def colour_bar(self, axes: list[Axes], **options: Any) -> None:
        """One colour bar beside all the axes, which are in one figure."""
        canvas.colour_bar(axes, self.norm, self.palette, self.label, **options)


def corners(result: Interpolation) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Places (x, y) in an upright equilateral triangle of side 1: w_1 on top, w_2 left, w_3 right."""
    top, _, right = result.coefficients.numpy().T
    return right + top / 2, top * 3**0.5 / 2


def triangles(result: Interpolation) -> Triangulation:
    """The points as triangles, without those that touch a point that is not finite."""
    triangulation = Triangulation(*corners(result))
    flat = TriAnalyzer(triangulation).get_flat_tri_mask(1e-3)
    touching = ~finite(result)[triangulation.triangles].all(1)
    triangulation.set_mask(flat | touching)
    return triangulation


def row(
    results: object, quantity: str, draw: Callable[[Interpolation, Axes, Scale], object], projection: str
) -> Figure:
    """One panel a result, titled with its name, all on one scale with one colour bar; rows of three at most."""
    landscapes = {name: three_points(result) for name, result in named(results, Interpolation).items()}
    scale = Scale.over(landscapes.values(), quantity)
    columns = min(len(landscapes), _COLUMNS)
    rows = -(-len(landscapes) // columns)
    figure = canvas.blank(3.1 * columns + 1.0, 3.3 * rows)
    panels: list[Axes] = []
    for place, (name, result) in enumerate(landscapes.items(), start=1):
        panels.append(figure.add_subplot(rows, columns, place, projection=projection))
        draw(result, panels[-1], scale)
        panels[-1].set_title(caption(name))
    scale.colour_bar(panels, shrink=0.8, pad=0.04 if projection == "ternary" else 0.1)
    return figure
