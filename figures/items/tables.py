"""Figures of T3's Table 1, of S17's Tables II and VI and Theorem 4, and of the penalties' effects."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from figures import kinds

SHOWN = {"all": "all parameters", "last": "top layer"}


def theory3_table1(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Radii against n for each half of the table, and their ratio beside the printed one."""
    kept = frame[frame["reached"] & frame["met"]].copy()
    cells = ["parameters", "stage", "labels", "n", "minimizer"]
    means = kept.groupby(cells)["radius"].mean().reset_index()
    printed = {(row["parameters"], row["labels"]): row["mean"] for row in metadata["published"]}
    loss = f"a loss of {metadata['settings']['equal_loss']:g}"
    stages = {"first 100 %": "first 100 % epoch", "equal loss": loss}
    figure, (*halves, ratio) = kinds.panels(
        [*SHOWN.values(), "natural / random"],
        title=f"Flatness radius, {metadata['settings']['data']}, rate {metadata['settings']['learning_rate']:g}; "
        f"dashed: at {loss}",
        size=(4.6, 4.0),
    )
    for ax, part in zip(halves, SHOWN, strict=True):
        for stage, style in zip(stages, ("-", "--"), strict=True):
            chosen = means[(means["parameters"] == part) & (means["stage"] == stage)]
            values = {y: printed[part, y] for y in ("natural", "random")} if stage == "first 100 %" else None
            kinds.curves(
                ax, chosen, "n", "radius", by="labels", published=values, scale="log",
                styles={y: {"linestyle": style} for y in ("natural", "random")},
            )  # fmt: skip
        ax.legend(*map(list, zip(*_first_of_each(ax), strict=True)))
    wide = means.pivot_table(index=["parameters", "stage", "n", "minimizer"], columns="labels", values="radius")
    ratios = (wide["natural"] / wide["random"]).rename("ratio").reset_index()
    ratios["cell"] = ratios["parameters"].map(SHOWN) + ", " + ratios["stage"]
    quotients = {f"{SHOWN[part]}, first 100 %": printed[part, "natural"] / printed[part, "random"] for part in SHOWN}
    kinds.curves(ratio, ratios, "n", "ratio", by="cell", published=quotients, scale="log")
    ratio.axhline(1, color="black", linewidth=0.8)
    _tick(figure, sorted(frame["n"].unique()))
    return figure


def _first_of_each(ax: Any) -> list[tuple[Any, str]]:
    handles, labels = ax.get_legend_handles_labels()
    return list({label: (handle, label) for handle, label in zip(handles[::-1], labels[::-1], strict=True)}.values())


def _tick(figure: Figure, sizes: list[int]) -> None:
    """Start at 0, tick every n."""
    for ax in figure.axes:
        ax.set_ylim(0, 1.4 * ax.get_ylim()[1])  # the legend is above
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()


def sokolic_table2(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Test accuracy against n for both methods, and the lead."""
    final = frame[frame["stage"] == "final"]
    figure, (left, right) = kinds.panels(["test accuracy, %", "lead of the Jacobian penalty, points"])
    printed = {name: {row["n"]: row[name] for row in metadata["published"]} for name in ("weight decay", "jacobian")}
    kinds.curves(left, final, "n", "accuracy", by="method", published=printed, scale="log")
    wide = final.pivot_table(index=["draw", "n"], columns="method", values="accuracy")
    lead = (wide["jacobian"] - wide["weight decay"]).rename("lead").reset_index()
    difference = {n: printed["jacobian"][n] - printed["weight decay"][n] for n in printed["jacobian"]}
    kinds.curves(right, lead, "n", "lead", published={"the paper": difference}, scale="log")
    right.axhline(0, color="black", linewidth=0.8)
    return figure


def sokolic_table6(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Cost of a penalized step in plain ones, by network."""
    figure, grid = kinds.panels(["eq. 49, exact", "eq. 52, per layer"])
    exact, per_layer = (row["ratio"] for row in metadata["published"])
    # The source measured each penalty on one kind of network.
    printed = {"Frobenius, exact": {"CNN": exact}, "per layer": {"ResNet": per_layer}}
    for ax, (penalty, rows) in zip(grid, frame.groupby("penalty"), strict=True):
        measured = {name: part["ratio"].tolist() for name, part in rows.groupby("network")}
        kinds.bars(ax, measured, printed[str(penalty)], label="steps without the penalty")
    grid[0].legend_.remove()  # the other panel has room for it
    return figure


def sokolic_theorem4(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Median of each bound, lower and upper, by network."""
    names = list(frame["network"].unique())
    figure, grid = kinds.panels(names, size=(6.4, 4.2))
    for ax, name in zip(grid, names, strict=True):
        medians = frame[frame["network"] == name].groupby(["side", "method"])["value"].median().reset_index()
        medians = medians.sort_values("value")
        shades = medians["side"].map({"lower": kinds.CYCLE[0], "upper": kinds.CYCLE[1]})
        ax.barh(medians["method"], medians["value"], color=shades)
        ax.set_xlabel("median; blue: lower bounds, vermilion: attacks")
    return figure


def sokolic_constant(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Printed and corrected bound over the true margin, random linear classifiers; a bound holds left of 1."""
    figure, grid = kinds.panels(["eq. 36, spectral norm", "eq. 37, Frobenius norm"])
    for ax, norm in zip(grid, ("spectral", "frobenius"), strict=True):
        parts = [
            pd.DataFrame({"bound / margin": frame[f"{form}_{norm}"] / frame["margin"], "form": form})
            for form in ("printed", "corrected")
        ]
        kinds.distributions(ax, pd.concat(parts), "bound / margin", by="form", mark=1.0)
    return figure


def penalties(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Fall of each penalty's quantity on training samples in per cent, by data set, with 95 % intervals."""
    chosen = [entry for entry in metadata["outcomes"] if not entry["beside"]]
    names = list(dict.fromkeys(entry["rule"].partition(",")[0] for entry in chosen))
    figure, grid = kinds.panels(names, size=(6.4, 6.0))
    for ax, name in zip(grid, names, strict=True):
        own = [entry for entry in chosen if entry["rule"].startswith(f"{name}, ")][::-1]
        effects = [float(entry["effect"]) for entry in own]
        bounds = [[float(bound) for bound in entry["interval"]] for entry in own]
        errors = [[e - low for e, (low, _) in zip(effects, bounds, strict=True)],
                  [high - e for e, (_, high) in zip(effects, bounds, strict=True)]]  # fmt: skip
        labels = [entry["rule"].partition(": ")[2].partition(" lowers ")[0] for entry in own]
        ax.barh(labels, effects, xerr=errors, color=kinds.CYCLE[0], capsize=2)
        ax.set_xlabel("fall of the quantity, % of the mean without the penalty")
    return figure


FIGURES = {
    "T3-T1": theory3_table1,
    "S17-T2": sokolic_table2,
    "S17-T6": sokolic_table6,
    "S17-Thm4": sokolic_theorem4,
    "S17-Thm4-constant": sokolic_constant,
    "B19-5": penalties,
}
