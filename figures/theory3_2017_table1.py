"""T3 Table 1 as a figure: radii against n, and the ratio of natural to random.

    python -m figures.theory3_2017_table1 --preset cpu

reads records/theory3_2017/table1-cpu.parquet and writes figures/out/theory3_2017_table1-cpu.png.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flatprobe.utils.tables import read_table

ROOT = Path(__file__).parents[1]
COLOURS = {"natural": "#0072B2", "random": "#D55E00"}  # Okabe and Ito's blue and vermilion
TITLES = {"all": "all parameters", "last": "top layer"}
RATES = ("#000000", "#009E73", "#CC79A7", "#E69F00")  # one per learning rate, also Okabe and Ito's
STAGES = {"first 100 %": "o", "equal loss": "s"}


Printed = Mapping[tuple[str, str], float]


def draw(frame: pd.DataFrame, printed: Printed, preset: Mapping[str, Any], rate: float) -> Figure:
    """Panels of radii over all parameters and the top layer, and of their ratio."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    chosen = frame[frame["learning_rate"] == rate]
    for axes, parameters in zip(panels[:2], TITLES, strict=True):
        _radii(axes, chosen[chosen["parameters"] == parameters], parameters, printed)
    _ratio(panels[2], frame, printed)
    panels[0].legend(fontsize=8, frameon=False)
    panels[2].legend(fontsize=8, frameon=False)
    figure.suptitle(
        f"Flatness radius on {preset['data']} (left, middle: learning rate {rate:g}): mean over minimizers, bars one "
        f"standard deviation across them; circles: first 100 % epoch, squares: at a loss of {preset['equal_loss']:g}",
        fontsize=10,
    )
    return figure


def _means(frame: pd.DataFrame) -> pd.Series:
    """Mean radius of every minimizer."""
    return frame[frame["reached"] & frame["met"]].groupby(["stage", "labels", "n", "minimizer"])["radius"].mean()


def _radii(axes: Axes, frame: pd.DataFrame, parameters: str, printed: Printed) -> None:
    cells = _means(frame).groupby(["stage", "labels", "n"]).agg(["mean", "std"])
    for labels, colour in COLOURS.items():
        for stage, marker in STAGES.items():
            cell = cells.loc[stage, labels]
            style = "-" if stage == "first 100 %" else "--"
            label = f"{labels}, {stage}"
            axes.errorbar(
                cell.index, cell["mean"], cell["std"], color=colour, marker=marker, ls=style, capsize=3, label=label
            )
        value = printed[parameters, labels]
        axes.axhline(value, color=colour, lw=1, ls=":")
        axes.annotate(
            f"T3: {value}", (0.02, value), (0, 2), ("axes fraction", "data"), "offset points", color=colour, fontsize=8
        )
    axes.set(
        title=TITLES[parameters], xlabel="training samples n", ylabel="flatness radius (weight distance)", xscale="log"
    )
    _finish(axes, frame)


def _ratio(axes: Axes, frame: pd.DataFrame, printed: Printed) -> None:
    """Ratio over all parameters, one colour per learning rate."""
    rates = sorted(frame["learning_rate"].unique())
    for rate, colour in zip(rates, RATES, strict=False):
        chosen = frame[(frame["learning_rate"] == rate) & (frame["parameters"] == "all")]
        means = _means(chosen).groupby(["stage", "labels", "n"]).mean()
        for stage, marker in STAGES.items():
            ratio = means.loc[stage, "natural"] / means.loc[stage, "random"]
            style = "-" if stage == "first 100 %" else "--"
            label = f"learning rate {rate:g}, {stage}"
            axes.plot(ratio.index, ratio, style, marker=marker, color=colour, label=label)
    axes.axhline(1, color="black", lw=0.6)
    value = printed["all", "natural"] / printed["all", "random"]
    axes.axhline(value, color="black", lw=1, ls=":")
    axes.annotate(f"T3: {value:.1f}", (0.02, value), (0, 2), ("axes fraction", "data"), "offset points", fontsize=8)
    axes.set(
        title="natural / random, all parameters",
        xlabel="training samples n",
        ylabel="ratio of mean radii",
        xscale="log",
    )
    _finish(axes, frame)


def _finish(axes: Axes, frame: pd.DataFrame) -> None:
    """Start at 0, tick every n."""
    sizes = sorted(frame["n"].unique())
    axes.set_ylim(bottom=0)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()


def main(arguments: list[str] | None = None) -> Path:
    """Draw a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--record", type=Path, help="by default records/theory3_2017/table1-PRESET.parquet")
    parser.add_argument("--out", type=Path, help="by default figures/out/theory3_2017_table1-PRESET.png")
    parser.add_argument("--learning-rate", type=float, help="a learning rate of the record; by default its first")
    options = parser.parse_args(arguments)
    record = options.record or ROOT / "records" / "theory3_2017" / f"table1-{options.preset}.parquet"
    out = options.out or ROOT / "figures" / "out" / f"theory3_2017_table1-{options.preset}.png"
    frame, metadata = read_table(record)
    preset = metadata["settings"]["preset"]
    rate = options.learning_rate or preset["learning_rates"][0]
    out.parent.mkdir(parents=True, exist_ok=True)
    printed = {(row["parameters"], row["labels"]): row["mean"] for row in metadata["published"]}
    draw(frame, printed, preset, rate).savefig(out, dpi=150)
    print(out)
    return out


if __name__ == "__main__":
    main()
