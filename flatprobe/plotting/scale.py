"""Common scale of values and colours for landscapes and slices."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.slices import RandomSlice
from flatprobe.probes.surfaces import has_error
from flatprobe.utils.arguments import one_of

L = TypeVar("L", Interpolation, RandomSlice)
Limits = tuple[float, float]

# A mean cross-entropy below this (nats) is beyond float32's accuracy at a loss of order 1, and on a logarithmic scale
# it would take the colours away from everything else.
FLOOR = 1e-6
QUANTITIES = ("loss", "accuracy")
_LEVELS = 25
# Bright is good in both: the palette is perceptually uniform and survives every common colour vision.
_PALETTES = {"loss": "viridis_r", "accuracy": "viridis"}


def finite(result: Interpolation | RandomSlice) -> Bool[np.ndarray, " *points"]:
    """Mask of points with a finite loss; elsewhere the accuracy means nothing either."""
    return result.loss.isfinite().numpy()


def check_quantity(quantity: str, results: Iterable[Interpolation | RandomSlice]) -> None:
    """Check that the results have a quantity.

    Raises:
        ValueError: for an unknown quantity, or the accuracy of a risk without an error.
    """
    one_of("quantity", quantity, QUANTITIES)
    if quantity == "accuracy" and not all(map(has_error, results)):
        msg = 'quantity must be "loss" for a risk without an error, got "accuracy". Its targets are no classes'
        raise ValueError(msg)


@dataclass(frozen=True)
class Scale:
    """Scale of a picture: linear for accuracy, logarithmic for a loss above 0.

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
    def over(
        cls, results: Iterable[Interpolation | RandomSlice], quantity: str, limits: Limits | None = None
    ) -> "Scale":
        """The scale between the limits, or over all finite values of the results.

        Raises:
            ValueError: for an unknown quantity, limits that are not in order, or if no value is finite.
        """
        results = list(results)
        check_quantity(quantity, results)
        if limits is not None and not -np.inf < limits[0] < limits[1] < np.inf:
            msg = f"limits must be two finite numbers in ascending order, got {limits}. The lower limit may be 0"
            raise ValueError(msg)
        values = np.concatenate([getattr(result, quantity).numpy()[finite(result)] for result in results])
        if len(values) == 0:
            msg = f"no point has a finite loss; expected some, to draw the {quantity}"
            raise ValueError(msg)
        if limits is not None:
            return cls(quantity, *limits)
        low, high = float(values.min()), float(values.max())
        if quantity == "accuracy":
            return cls(quantity, min(low, high - 0.01), high)
        shown = max(low, FLOOR)
        return cls(quantity, shown, max(high, 1.01 * shown), floored=low < FLOOR)

    @property
    def logarithmic(self) -> bool:
        """True for a logarithmic scale."""
        return self.quantity == "loss" and self.low > 0

    @property
    def label(self) -> str:
        """The label of the axis or the colour bar."""
        floor = f", at least {FLOOR:g}" if self.floored else ""
        return f"training {self.quantity}{f' (log scale{floor})' if self.logarithmic else ''}"

    @cached_property
    def norm(self) -> Normalize:
        """Value -> [0, 1]."""
        return (LogNorm if self.logarithmic else Normalize)(self.low, self.high)

    @property
    def levels(self) -> Float[np.ndarray, " levels"]:
        """The levels of the contours."""
        levels = (np.geomspace if self.logarithmic else np.linspace)(self.low, self.high, _LEVELS)
        # Rounding in the powers must not push an extreme value out of the outermost contour.
        levels[[0, -1]] = self.low, self.high
        return levels

    @property
    def palette(self) -> str:
        """The colour map."""
        return _PALETTES[self.quantity]

    def values(self, result: Interpolation | RandomSlice) -> Float[np.ndarray, " *points"]:
        """The quantity per point, clipped to the scale; its lower end where not finite."""
        values = np.where(finite(result), getattr(result, self.quantity).numpy(), self.low)
        return values.clip(self.low, self.high)

    def colour_bar(self, axes: list[Axes], **options: Any) -> None:
        """One colour bar beside all the axes, which are in one figure."""
        canvas.colour_bar(axes, self.norm, self.palette, self.label, **options)


def row(
    results: Mapping[str, L],
    scale: Scale,
    draw: Callable[[L, Axes, Scale], object],
    projection: str | None = None,
) -> Figure:
    """One titled panel per result, all on one scale with one colour bar."""
    figure, panels = canvas.panels(len(results), height=0.86 if projection else 1.0, projection=projection)
    for panel, (name, result) in zip(panels, results.items(), strict=True):
        draw(result, panel, scale)
        panel.set_title(caption(name, 24 if len(panels) <= 4 else 16))
        if projection is None:
            panel.label_outer()
    size = {"fraction": 0.3 / figure.get_figheight(), "pad": 0.15 / figure.get_figheight()}
    label = f"height and colour: {scale.label}" if projection == "3d" else scale.label
    canvas.colour_bar(panels, scale.norm, scale.palette, label, location="bottom", shrink=0.6, aspect=30, **size)
    return figure
