"""Headline figures of many networks as a table in colours."""

import textwrap
from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption
from flatprobe.probes.generalization import Generalization
from flatprobe.studies.comparison import Comparison
from flatprobe.studies.headlines import better, headline
from flatprobe.utils.numbers import three
from flatprobe.utils.results import Result

_COLUMNS = 6  # figures side by side; more are in another table below
_ROW = 0.27  # inches


@canvas.drawing()
def draw(comparison: Comparison) -> Figure:
    """Headline figures, a row per network and a column per measurement, coloured by their rank within the column.

    Blue is the flatter, more robust or better generalizing end, red the other. A figure without such an end is white,
    and so is one that all networks share. A missing measurement is empty.

    Args:
        comparison: a comparison.

    Returns:
        The figure.

    Raises:
        ValueError: for a comparison without a figure to draw.
    """
    columns = {name: own for name, own in comparison.results.items() if any(map(headline, own.values()))}
    if not columns:
        msg = "there are no figures to draw; expected at least one measurement of the networks"
        raise ValueError(msg)
    heads = list(dict.fromkeys(comparison.groups.values()))
    names = sorted(comparison.networks, key=lambda name: heads.index(comparison.groups[name]))
    parts = [list(columns)[start : start + _COLUMNS] for start in range(0, len(columns), _COLUMNS)]
    figure = canvas.blank(canvas.WIDTH, len(parts) * (_ROW * len(names) + 0.8) + 0.3)
    for ax, part in zip(figure.subplots(len(parts), 1, squeeze=False).flatten(), parts, strict=True):
        ranks, words = np.full((len(names), _COLUMNS), np.nan), np.full((len(names), _COLUMNS), "", dtype=object)
        for place, measurement in enumerate(part):
            ranks[:, place], words[:, place] = _column(columns[measurement], names)
        sns.heatmap(
            ranks, annot=words, fmt="", cmap="vlag_r", vmin=-0.2, vmax=1.2, cbar=False, linewidths=1, ax=ax,
            annot_kws={"fontsize": 10}, xticklabels=False, yticklabels=False,
        )  # fmt: skip
        ax.set_yticks(np.arange(len(names)) + 0.5, [caption(name, 20) for name in names], rotation=0)
        labels = [textwrap.fill(_title(name, columns[name]), 10, break_long_words=False) for name in part]
        ax.set_xticks(np.arange(len(part)) + 0.5, labels, fontsize=10)
        ax.tick_params(length=0, labeltop=True, labelbottom=False)
        ax.grid(visible=False)
    ax.set_xlabel("blue: better, red: worse, by rank in the column", fontsize=10)
    return figure


def _title(measurement: str, results: Mapping[str, Result]) -> str:
    """The measurement; of generalization the figure, such as the test accuracy."""
    figures = {own.figure for own in map(headline, results.values()) if own is not None}
    general = len(figures) == 1 and all(isinstance(result, Generalization) for result in results.values())
    return caption((figures.pop() if general else measurement).replace("_", " "), 33)


def _column(results: Mapping[str, Result], names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Rank from 0 (worst) to 1 (best) and the figure in words per network; 0.5 without a better end."""
    found = {name: headline(result) for name, result in results.items()}
    values = np.array([own.value if (own := found.get(name)) else np.nan for name in names])
    ways = {better(result) for result in results.values()}
    ranks = np.where(np.isnan(values), np.nan, 0.5)
    known = values[~np.isnan(values)]
    if ways <= {"higher", "lower"} and len(ways) == 1 and len(known) > 1 and known.min() < known.max():
        below, equal = ((compare(known[:, None], known)).sum(0) for compare in (np.less, np.equal))
        share = (below + (equal - 1) / 2) / (len(known) - 1)
        ranks[~np.isnan(values)] = share if ways == {"higher"} else 1 - share
    return ranks, ["" if (own := found.get(name)) is None else three(own.scale * own.value) for name in names]
