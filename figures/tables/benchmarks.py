"""Tables of the benchmarks: costs of alternatives relative to flatprobe's."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from figures.tables.markdown import marked, provenance, ratio, record, table

FOLDER = "tests/benchmarks/records"
NETWORKS = ("MLP", "CNN", "ResNet")
BOLD = "Bold: flatprobe is slower, or needs more."

# Per table: record, then rows of (label, alternative, flatprobe's variant, figure). Every cell is the ratio of medians.
COMPARED: dict[str, tuple[str, list[tuple[str, str, str, str]]]] = {
    "passes": (
        "passes",
        [
            ("landscape of 15 points: bare forward passes", "bare forward passes", "landscape", "seconds"),
            ("Gaussian robustness, 15 noisy passes: bare passes", "bare forward passes", "robustness", "seconds"),
        ],
    ),
    "curvature": (
        "sharpness",
        [
            (
                "Hessian-vector product: forward over reverse",
                "product: forward over reverse",
                "product: flatprobe",
                "seconds",
            ),
            (
                "Hessian trace, 10 draws: one product per draw",
                "trace, 10 draws: a product each",
                "trace, 10 draws: flatprobe",
                "seconds",
            ),
            (
                "random slice, 11 points: bare forward passes",
                "slice, 11 points: bare passes",
                "slice, 11 points: flatprobe",
                "seconds",
            ),
            ("gradient noise: per-sample gradients by vmap", "noise: vmap per sample", "noise: flatprobe", "seconds"),
            ("gradient noise: peak memory", "noise: vmap per sample", "noise: flatprobe", "peak_mebibytes"),
            (
                "largest eigenvalue: products of power iteration",
                "eigenvalue: power iteration",
                "eigenvalue: flatprobe",
                "products",
            ),
            ("largest eigenvalue: time", "eigenvalue: power iteration", "eigenvalue: flatprobe", "seconds"),
        ],
    ),
    "accuracy": (
        "accuracy",
        [("adversarial accuracy, four budgets: each budget anew", "each budget anew", "flatprobe", "seconds")],
    ),
}


def _load(name: str) -> tuple[pd.DataFrame, str]:
    path = f"{FOLDER}/{name}.parquet"
    frame, metadata = record(path)
    rounds = int(frame["round"].max()) if "round" in frame else 0
    return frame, provenance(path, metadata) + (f" Up to {rounds} rounds." if rounds > 1 else " One round.")


def _median(frame: pd.DataFrame, network: str, variant: str, figure: str) -> float:
    return float(frame.loc[(frame["network"] == network) & (frame["variant"] == variant), figure].median())


def _cell(frame: pd.DataFrame, network: str, alternative: str, ours: str, figure: str) -> str:
    value = _median(frame, network, alternative, figure) / _median(frame, network, ours, figure)
    return "" if pd.isna(value) else marked(ratio(value), worse=value < 0.995)


def compared(name: str) -> str:
    """Rows of `COMPARED`, a column per network."""
    source, rows = COMPARED[name]
    frame, origin = _load(source)
    present = [network for network in NETWORKS if network in set(frame["network"])]
    lines = [[label, *(_cell(frame, network, *names) for network in present)] for label, *names in rows]
    return table(["alternative / flatprobe", *present], lines, BOLD, origin)


def radius() -> str:
    """Evaluations and time per direction."""
    frame, origin = _load("radius")
    rows = []
    for network in NETWORKS:
        cells = [network]
        for variant in ("flatprobe", "bracket and bisect", "walk of 1 % steps"):
            seconds = _median(frame, network, variant, "seconds_per_direction")
            cells += [f"{_median(frame, network, variant, 'evaluations_per_direction'):.1f}", f"{seconds:.3g}"]
        rows.append(cells)
    columns = ["", "flatprobe", "s", "bracket and bisect", "s", "walk in 1 % steps", "s"]
    return table(columns, rows, "Evaluations of the risk per direction, and seconds per direction.", origin)


def jacobian() -> str:
    """Time by number of classes, and memory."""
    frame, origin = _load("jacobian")
    rows = []
    for alternative in ("vmap(jacrev) + SVD", "loop over samples"):
        for classes in sorted(frame["classes"].unique()):
            part = frame[frame["classes"] == classes]
            cells = (_cell(part, network, alternative, "flatprobe", "seconds") for network in NETWORKS)
            rows.append([f"{classes:,} classes: {alternative}", *cells])
    part = frame[frame["classes"] == 10]
    cells = (_cell(part, network, "vmap(jacrev) + SVD", "flatprobe", "peak_mebibytes") for network in NETWORKS)
    rows.append(["10 classes: peak memory of vmap(jacrev) + SVD", *cells])
    return table(["alternative / flatprobe", *NETWORKS], rows, BOLD, origin)


def smoothing() -> str:
    """The smoothed classifier and the largest Jacobian norm."""
    frame, origin = _load("smoothing")
    labels = {
        "smoothed_certificate": ("sample by sample, 400 draws a pass (Cohen et al.)", "as many bare forward passes"),
        "jacobian_maximum": ("point by point",),
    }
    rows = [
        [
            f"`{probe}`: {alternative}".replace("a pass", "per pass"),
            *(_cell(frame, f"{network}, {probe}", alternative, "flatprobe", "seconds") for network in NETWORKS),
        ]
        for probe, alternatives in labels.items()
        for alternative in alternatives
    ]
    return table(["alternative / flatprobe", *NETWORKS], rows, BOLD, origin)


def operators() -> str:
    """Norms of convolutions: seconds, and how far above the estimate."""
    frame, origin = _load("operators")
    medians = frame.groupby(["layer", "variant"], sort=False)[["seconds", "excess"]].median()
    variants = ("certified", "plain torus", "dense SVD", "estimate")
    rows = []
    for layer in frame["layer"].unique():
        cells = [layer.replace(" -> ", " → ")]
        for variant in variants:
            if (layer, variant) not in medians.index:
                cells.append("not run")
                continue
            seconds, excess = medians.loc[(layer, variant)]
            above = "" if variant in {"dense SVD", "estimate"} else f", + {100 * excess:.2g} %"
            cells.append(f"{seconds:.2g} s" + (above if excess > 5e-5 else ", + 0 %" if above else ""))
        rows.append(cells)
    return table(["layer (channels, kernel, input)", *variants], rows, origin)


def penalties() -> str:
    """A training step with each penalty in units of a plain one."""
    frame, origin = _load("penalties")
    rows = []
    for variant in frame["variant"].unique():
        if variant == "plain":
            continue
        cells = [variant]
        for network in NETWORKS:
            value = _median(frame, network, variant, "seconds") / _median(frame, network, "plain", "seconds")
            target = _median(frame, network, variant, "asked")
            known = "" if pd.isna(target) else f" ({target:g})"
            cells.append(marked(ratio(value), worse=value > target) + known)
        rows.append(cells)
    plain = ", ".join(f"{network} {1000 * _median(frame, network, 'plain', 'seconds'):.0f} ms" for network in NETWORKS)
    note = f"In brackets: the target. Bold: the target is missed. A plain step takes: {plain}."
    return table(["penalized step / plain step", *NETWORKS], rows, note, origin)


def attacks() -> str:
    """Every attack: median distance, samples without an adversarial point, seconds."""
    frame, origin = _load("attacks")
    rows = [
        [variant, *(cell for network in ("MLP", "CNN") for cell in _attack(frame, network, variant))]
        for variant in frame["variant"].unique()
    ]
    columns = ["attack and steps", "MLP: distance", "not found", "s", "CNN: distance", "not found", "s"]
    samples = int(frame["samples"].iloc[0])
    return table(columns, rows, f"{samples} test digits; a sample without an adversarial point counts as inf.", origin)


def _attack(frame: pd.DataFrame, network: str, variant: str) -> list[str]:
    distance, missed, seconds = (
        _median(frame, network, variant, figure) for figure in ("median_distance", "not_found", "seconds")
    )
    return [f"{distance:.4f}", f"{missed:.0f}", f"{seconds:.2f}"]


def foolbox() -> str:
    """Per setting of foolbox, our fastest setting that is no worse in any figure."""
    frame, origin = _load("attacks")
    figures = ["median_distance", "not_found", "seconds"]
    rows = []
    for variant in frame.loc[frame["variant"].str.startswith("foolbox"), "variant"].unique():
        cells = [variant]
        for network in ("MLP", "CNN"):
            medians = frame[frame["network"] == network].groupby("variant")[figures].median()
            ours = medians[~medians.index.str.startswith("foolbox")]
            fit = ours[(ours <= medians.loc[variant]).all(axis=1)].sort_values("seconds")
            distance, missed, seconds = medians.loc[variant]
            cells.append(f"{distance:.4f} in {seconds:.2f} s" + (f", {missed:.0f} not found" if missed else ""))
            found = [f"{name}: {row.iloc[0]:.4f} in {row.iloc[2]:.2f} s" for name, row in fit.iterrows()]
            cells.append(found[0] if found else "**none**")
        rows.append(cells)
    return table(["foolbox 3.3.4", "MLP", "ours", "CNN", "ours"], rows, origin)


def batch_size() -> str:
    """A forward pass over the same samples at each batch size."""
    frame, origin = _load("batch_size")
    rows = [
        [
            variant.removeprefix("batch size "),
            *(ratio(_median(frame, n, variant, "seconds") / _best(frame, n)) for n in NETWORKS),
        ]
        for variant in frame["variant"].unique()
    ]
    return table(["batch size", *NETWORKS], rows, "Time over that of the fastest batch size.", origin)


def _best(frame: pd.DataFrame, network: str) -> float:
    return float(frame[frame["network"] == network].groupby("variant")["seconds"].median().min())


def interruptions() -> str:
    """Runs that were killed and resumed, by optimizer."""
    frame, origin = _load("interruptions")
    frame = frame.assign(saves=[list(phases).count("save") for phases in frame["phases"]])
    rows = []
    for name, part in [*frame.groupby("optimizer"), ("all", frame)]:
        counts = (len(part), part["kills"].sum(), part["saves"].sum(), part["resumed"].sum(), part["lost"].sum())
        rows.append([str(name), *map(str, counts), str(part["identical"].sum())])
    columns = [
        "optimizer",
        "runs",
        "kills",
        "kills within a save",
        "resumed",
        "checkpoints lost",
        "identical to the bit",
    ]
    return table(columns, rows, origin.removesuffix(" One round."))


def sweeps() -> str:
    """Sweeps whose workers were killed, by what a worker was doing at the kill."""
    frame, origin = _load("sweeps")
    kills = frame["phases"].explode().dropna()
    rows = [[phase, str(count)] for phase, count in kills.value_counts().items()]
    rows.append([f"all, in {len(frame)} sweeps of {frame['trainings'].iloc[0]} trainings", str(len(kills))])
    done = (
        f"Lost: {frame['lost'].sum()}. Done twice: {frame['twice'].sum()}. "
        f"Sweeps identical to the serial one, to the bit: {frame['identical'].sum()} of {len(frame)}."
    )
    return table(["the worker was", "kills"], rows, f"{done} {origin.removesuffix(' One round.')}")


BENCHMARKS: dict[str, Callable[[], str]] = {
    "radius": radius,
    "jacobian": jacobian,
    **{name: partial(compared, name) for name in COMPARED},
    "smoothing": smoothing,
    "operators": operators,
    "penalties": penalties,
    "attacks": attacks,
    "foolbox": foolbox,
    "batch_size": batch_size,
    "interruptions": interruptions,
    "sweeps": sweeps,
}
