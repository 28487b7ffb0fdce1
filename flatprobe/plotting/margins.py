"""Histograms of functional margins or scores."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, histogram
from flatprobe.plotting.names import agreed, looks, named
from flatprobe.probes.margins import Margins
from flatprobe.utils.results import Result

_AXES = {
    "functional_margins": "functional margin (logits)",
    "scores": "score ({outputs})",
}


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Histograms over samples, with common bins; misclassified samples lie left of the line at 0.

    Args:
        results: one `Margins`, or several by name, of the same probe and outputs.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or margins and scores mixed.
    """
    margins = named(results, Margins)
    probes = {str(result.settings["probe"]) for result in margins.values()}
    if len(probes) > 1:
        msg = (
            f"the results are {' and '.join(sorted(probes))}; expected one of them: their units differ, draw them apart"
        )
        raise ValueError(msg)
    outputs = agreed(margins, "outputs")
    own = looks(list(margins), groups)
    ax = canvas.axes(ax)
    histogram.outlines(ax, margins, histogram.edges(margins, logarithmic=False), own, groups)
    ax.axvline(0, color="#333333", linewidth=1.2)
    ax.set_xlabel(_AXES[probes.pop()].format(outputs=outputs))
    if min(float(result.values.min()) for result in margins.values()) < 0:
        ax.annotate(
            "misclassified", (0, 1), (-2, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right", va="top", rotation=90,
        )  # fmt: skip
    return ax
