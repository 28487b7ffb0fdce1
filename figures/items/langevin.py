"""Langevin chains on two minima of one depth: histograms over Boltzmann's density, beside the potential."""

from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.theory3_2017.langevin_dimensions import DEGENERATE, WIDE
from analyses.theory3_2017.langevin_plane import BOLTZMANN, HEIGHT, LANGEVIN, SGD, SGDL
from analyses.theory3_2017.langevin_potentials import Potential
from figures.kinds import CYCLE, panels

LEVELS = np.linspace(0, 6, 13)  # of the potential, in units of T


def dimensions(frame: pd.DataFrame, _metadata: dict, *, potential: Potential, title: str) -> Figure:
    """Figs. 7 and 9: the histogram of w_1 by number of dimensions, and the potential on the plane."""
    figure, (ax, plane) = panels(["density of $w_1$", "potential U, d = 2"], size=(6.2, 4.0), title=title)
    fine = frame.loc[frame["rate"] > 0, "rate"].min()
    for number, (d, part) in enumerate(frame.groupby("dimensions")):
        for rate in (fine, 0.0):
            shares = part[part["rate"] == rate].groupby("w1")["share"].sum()
            shares = shares / shares.sum()
            widths = np.gradient(shares.index.to_numpy())
            if rate:
                ax.step(shares.index, shares / widths, where="mid", color=CYCLE[number], label=f"d = {d}")
            else:
                ax.plot(shares.index, shares / widths, "--", color=CYCLE[number], linewidth=1)
    ax.plot([], [], "--", color="#555555", linewidth=1, label="Boltzmann")
    ax.set(xlabel="$w_1$", ylabel="density", ylim=(0, 1.3 * ax.get_ylim()[1]))
    ax.legend(ncols=3, loc="upper left")
    draw_potential(plane, potential)
    return figure


def laws(frame: pd.DataFrame, _metadata: dict, *, title: str) -> Figure:
    """Figs. 8 and 10: the histogram over the plane for each law, Boltzmann's, and the potential."""
    fine = frame.loc[frame["rate"] > 0, "rate"].min()
    shown = frame[frame["rate"].isin([fine, 0.0])]
    names = [name for name in (LANGEVIN, SGD, SGDL) if name in {*shown["law"]}]
    whole = shown[shown["law"] == BOLTZMANN].pivot_table(index="w2", columns="w1", values="share")
    figure, axes = panels([*names, "Boltzmann", "potential U"], size=(4.2, 3.4), title=title)
    for ax, name in zip(axes, [*names, BOLTZMANN], strict=False):
        shares = shown[shown["law"] == name].pivot_table(index="w2", columns="w1", values="share", aggfunc="sum")
        shares = shares.reindex(index=whole.index, columns=whole.columns).fillna(0)
        drawn = ax.pcolormesh(shares.columns, shares.index, shares / shares.to_numpy().sum(), cmap="viridis")
        figure.colorbar(drawn, ax=ax, label="share")
        ax.set(xlabel="$w_1$", ylabel="$w_2$", xlim=DEGENERATE.extent, ylim=(-HEIGHT, HEIGHT))
        ax.grid(visible=False)
    draw_potential(axes[-1], DEGENERATE)
    return figure


def draw_potential(ax: Axes, potential: Potential) -> None:
    """Filled contours of U on the plane."""
    first, second = np.linspace(*potential.extent, 201), np.linspace(-HEIGHT, HEIGHT, 201)
    grid = np.stack(np.meshgrid(first, second), -1).reshape(-1, 2)
    values = potential(torch.from_numpy(grid)).numpy().reshape(201, 201)
    drawn = ax.contourf(first, second, values, LEVELS, cmap="viridis_r", extend="max")
    ax.get_figure().colorbar(drawn, ax=ax, label="U / T")
    ax.set(xlabel="$w_1$", ylabel="$w_2$")
    ax.grid(visible=False)


FIGURES = {
    "T3-F7": partial(dimensions, potential=WIDE, title="A flat region that is twice as wide in each dimension"),
    "T3-F8": partial(laws, title="Langevin on a plane: point (left) and degenerate minimum (right)"),
    "T3-F9": partial(dimensions, potential=DEGENERATE, title="Point ($w_1$ = -2) and degenerate minimum ($w_1$ = 2)"),
    "T3-F10": partial(laws, title="SGD and SGDL on a plane: point (left) and degenerate minimum (right)"),
}
