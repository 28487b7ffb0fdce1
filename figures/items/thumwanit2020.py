"""Figures of Thumwanit (2020)."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from figures.kinds import CYCLE, panels
from flatprobe.plotting import canvas


@mpl.rc_context(canvas.STYLE)
def noise_injection(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Observation 1: rise over lambda^2 against lambda per network, the printed and the corrected term; eq. 58."""
    losses = {"cross_entropy": "cross-entropy", "squared": "squared loss"}
    titles = [f"{activation}, {name}" for name in losses.values() for activation in ("tanh", "ReLU")]
    title = "Mean rise of the loss under N(0, lambda^2 I), over lambda^2: networks by colour, bars 4 standard errors"
    figure, grid = panels(titles, columns=2, size=(5.2, 3.7), title=title)
    for place, ax in enumerate(grid):
        loss, activation = list(losses)[place // 2], ("tanh", "relu")[place % 2]
        part = frame[(frame["loss"] == loss) & (frame["activation"] == activation)]
        for shade, (seed, found) in zip(CYCLE, part.groupby("seed"), strict=False):
            first = seed == part["seed"].min()
            ax.errorbar(
                found["deviation"],
                found["rise"],
                4 * found["error"],
                fmt="o",
                color=shade,
                capsize=3,
                markersize=4,
                label="measured" if first else None,
            )
            for term, style in (("printed", ":"), ("corrected", "-")):
                ax.axhline(
                    found[term].iloc[0], color=shade, linestyle=style, linewidth=1.2, label=term if first else None
                )
        ax.set(xscale="log", xlabel="lambda", ylabel="rise / lambda^2")
    grid[1].legend()
    return figure


FIGURES = {"N20-Obs1": noise_injection}
