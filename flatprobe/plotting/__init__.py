"""Pictures of results: `draw(results, ax=None)`, one file a probe. matplotlib is imported here and nowhere below.

Every `draw` takes one result or a mapping of names to results of the same kind, and an optional mapping of names to
groups: networks of one group share a colour and differ by line and marker. Figures are made without pyplot, so that
neither the caller's backend nor the caller's settings change.
"""

from flatprobe.plotting import (
    adversarial,
    bounds,
    geometric,
    gradient_noise,
    jacobian,
    landscape,
    line,
    margins,
    radii,
    robustness,
    sharpness,
    slices,
    smoothing,
    surface,
    weight_norms,
)
from flatprobe.plotting.canvas import png

__all__ = [
    "adversarial",
    "bounds",
    "geometric",
    "gradient_noise",
    "jacobian",
    "landscape",
    "line",
    "margins",
    "png",
    "radii",
    "robustness",
    "sharpness",
    "slices",
    "smoothing",
    "surface",
    "weight_norms",
]
