"""Tables of the reproductions: the published number beside ours."""

from collections.abc import Callable

import pandas as pd
from scipy import stats

from figures.tables.markdown import GAP, marked, provenance, record, spread, table


def _radii(preset: str) -> tuple[pd.DataFrame, list[dict[str, object]], str]:
    """Mean radius and weight norm of each minimizer that met its stop, with origin."""
    path = f"records/theory3_2017/table1-{preset}.parquet"
    frame, metadata = record(path)
    keys = ["parameters", "stage", "labels", "n", "minimizer"]
    means = frame[frame["reached"] & frame["met"]].groupby(keys)[["radius", "weight_norm", "train_loss"]].mean()
    rate, loss = (metadata["settings"]["preset"][name] for name in ("learning_rates", "equal_loss"))
    means.attrs = {"rate": rate[0], "loss": loss}
    return means, metadata["published"], provenance(path, metadata)


def theory3(parameters: str) -> str:
    """T3 Table 1, MNIST, over all parameters or the top layer."""
    rows, origins = [], []
    for preset in ("slow", "cpu"):
        means, published, origin = _radii(preset)
        printed = {row["labels"]: row for row in published if row["parameters"] == parameters}
        origins.append(origin)
        rate, loss = means.attrs["rate"], means.attrs["loss"]
        for stage, name in (("first 100 %", "first 100 % epoch"), ("equal loss", f"at a loss of {loss:g}")):
            chosen = means.loc[parameters, stage]
            start = f"rate {rate:g}, {name}"
            if stage == "first 100 %":
                rows += [
                    [
                        f"{start}: {labels} labels",
                        *_means(chosen, labels),
                        f"{printed[labels]['mean']}{GAP}±{GAP}{printed[labels]['std']}",
                    ]
                    for labels in ("natural", "random")
                ]
            quotient = f"{printed['natural']['mean'] / printed['random']['mean']:.1f}" if stage == "first 100 %" else ""
            rows.append([f"{start}: ratio", *_ratios(chosen["radius"]), quotient])
            relative = chosen["radius"] / chosen["weight_norm"]
            rows.append([f"{start}: ratio in units of each weight norm", *_ratios(relative), ""])
    sizes = [f"n{GAP}={GAP}{n:,}" for n in chosen.index.unique("n")]
    return table(["", *sizes, "T3"], rows, "Bold: natural labels are not flatter.", *origins)


def _means(chosen: pd.DataFrame, labels: str) -> list[str]:
    return [spread(radii, 1) for _, radii in chosen.loc[labels, "radius"].groupby("n")]


def _ratios(radii: pd.Series) -> list[str]:
    means = radii.groupby(["labels", "n"]).mean()
    return [marked(f"{value:.2f}", worse=value <= 1) for value in means["natural"] / means["random"]]


def sokolic_table2() -> str:
    """S17 Table II, MNIST."""
    path = "records/sokolic2017/table2-cpu.parquet"
    frame, metadata = record(path)
    printed = {row["n"]: row for row in metadata["published"]}
    rows = []
    for n, part in frame[frame["stage"] == "final"].groupby("n"):
        wide = part.pivot_table(index="draw", columns="method", values="accuracy")
        lead = wide["jacobian"] - wide["weight decay"]
        published = printed[n]
        rows.append(
            [
                f"{n:,}",
                spread(wide["weight decay"], 2),
                f"{published['weight decay']:.2f}",
                spread(wide["jacobian"], 2),
                f"{published['jacobian']:.2f}",
                f"{lead.mean():.2f}{GAP}{_interval(lead)}",
                f"{published['jacobian'] - published['weight decay']:.2f}",
            ]
        )
    columns = ["n", "weight decay", "S17", "Jacobian penalty", "S17", "lead [95 %]", "S17"]
    note = "Test accuracy in per cent, ± one standard deviation over three draws; the interval is Student's t."
    return table(columns, rows, note, provenance(path, metadata))


def _half(differences: pd.Series) -> float:
    """Half of the 95 % interval of the mean, by Student's t."""
    return float(stats.t.ppf(0.975, len(differences) - 1) * differences.std() / len(differences) ** 0.5)


def _interval(differences: pd.Series) -> str:
    return f"[{differences.mean() - _half(differences):.2f},{GAP}{differences.mean() + _half(differences):.2f}]"


MARGINS = {
    "frobenius": "certified, Frobenius (S17 eq. 37)",
    "frobenius in float64": "the same in double precision",
    "spectral": "certified, spectral (S17 eq. 36)",
    "spectral in float64": "the same in double precision",
    "gamma_2": "gamma_2 (eq. 35), estimate",
    "gamma_1": "gamma_1 (eq. 34), estimate",
    "gradient": "pairwise gradient, estimate",
    "ddn": "DDN",
    "fab": "FAB",
    "log_barrier": "log barrier",
    "deepfool": "DeepFool",
    "ifgsm": "iterated FGSM",
}


def margins() -> str:
    """Medians of the bounds of the margin, and lower bounds above adversarial points."""
    path = "records/sokolic2017/margins-cpu.parquet"
    frame, metadata = record(path)
    rows = []
    for method, label in MARGINS.items():
        part = frame[frame["method"] == method]
        side = part["side"].iloc[0]
        above = (part["value"] > part["closest"]).groupby(part["network"]).sum()
        cells = [f"{median:.2g}" if median < 0.1 else f"{median:.3f}" for median in _medians(part)]
        counts = [marked(str(above[n]), worse=above[n] > 0) if side == "lower" else "" for n in ("mlp", "cnn")]
        rows.append([label, str(side), *(cell for pair in zip(cells, counts, strict=True) for cell in pair)])
    columns = ["", "bound", "MLP: median", "above an upper bound", "CNN: median", "above an upper bound"]
    return table(columns, rows, "l2 distance, pixels in [0, 1]; 200 test digits.", provenance(path, metadata))


def _medians(part: pd.DataFrame) -> list[float]:
    return [float(part.loc[part["network"] == network, "value"].median()) for network in ("mlp", "cnn")]


def effects() -> str:
    """Effect of each penalty on its quantity at equal training loss."""
    paths = {name: f"records/penalties/effects-{name}.parquet" for name in ("digits", "mnist")}
    records = {name: record(path) for name, path in paths.items()}
    first = records["digits"][0]
    rows = []
    for case, quantity in first[["case", "quantity"]].drop_duplicates().itertuples(index=False):
        cells = [case, quantity.replace("|", "\\|")]
        for frame, _ in records.values():
            chosen = frame[frame["case"] == case]
            cells += [_effect(chosen[chosen["on"] == on]) for on in ("training", "test")]
        rows.append(cells)
    columns = ["penalty", "its quantity", "digits: training", "digits: test", "MNIST: training", "MNIST: test"]
    note = (
        "Change in per cent of the mean without the penalty, with its 95 % interval over five seeds (paired, "
        "Student's t). Bold: the interval does not lie below 0."
    )
    return table(columns, rows, note, *(provenance(paths[name], metadata) for name, (_, metadata) in records.items()))


def _effect(part: pd.DataFrame) -> str:
    wide = part.pivot_table(index="seed", columns="penalised", values="value", dropna=False)
    relative = 100 * (wide[True] - wide[False]) / wide[False].mean()
    mean, half = relative.mean(), _half(relative)
    return marked(f"{mean:.0f}{GAP}[{mean - half:.0f},{GAP}{mean + half:.0f}]", worse=mean + half >= 0)


REPRODUCTIONS: dict[str, Callable[[], str]] = {
    "theory3_all": lambda: theory3("all"),
    "theory3_top_layer": lambda: theory3("last"),
    "sokolic_table2": sokolic_table2,
    "margins": margins,
    "effects": effects,
}
