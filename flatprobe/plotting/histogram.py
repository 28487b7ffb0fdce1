"""Histograms of per-sample values with common bins, as outlines that several networks can share."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from flatprobe.plotting.names import Look, legend
from flatprobe.probes.per_sample import PerSample

_FEWEST, _MOST = 20, 60


def edges(results: Mapping[str, PerSample], *, logarithmic: bool) -> Float[np.ndarray, " edges"]:
    """The edges of equal bins (of the logarithm, if asked for) over the values of all results."""
    values = np.concatenate([np.asarray(result) for result in results.values()])
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = (low / 2, high * 2) if logarithmic else (low - 0.5, high + 0.5)
    bins = _bins(
        [np.log(result.values.numpy()) if logarithmic else result.values.numpy() for result in results.values()]
    )
    bounds = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    # Rounding in the powers must not push an extreme value out of the outermost bin.
    bounds[[0, -1]] = low, high
    return bounds


def _bins(samples: Sequence[Float[np.ndarray, " _"]]) -> int:
    """How many: enough for the narrowest histogram by Freedman and Diaconis' rule, within bounds that stay readable."""
    widths = [2 * (np.quantile(own, 0.75) - np.quantile(own, 0.25)) / len(own) ** (1 / 3) for own in samples]
    spread = max(own.max() for own in samples) - min(own.min() for own in samples)
    width = min(widths)
    return int(np.clip(spread / width, _FEWEST, _MOST)) if width > 0 else _MOST


def outlines(
    ax: Axes,
    results: Mapping[str, PerSample],
    bounds: Float[np.ndarray, " edges"],
    own: Mapping[str, Look],
    groups: Mapping[str, str] | None,
) -> None:
    """One outline a network: the fraction of its samples in each bin."""
    handles = {}
    for name, result in results.items():
        counts, _ = np.histogram(np.asarray(result), bounds)
        look = own[name]
        ax.stairs(counts / len(result), bounds, fill=True, color=look.colour, alpha=0.08)
        handles[name] = ax.stairs(
            counts / len(result), bounds, color=look.colour, linestyle=look.line, linewidth=1.6, label=name
        )
    ax.set_ylim(bottom=0)
    ax.set_ylabel("fraction of samples")
    legend(ax, handles, groups)
