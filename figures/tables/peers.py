"""Tables of flatprobe beside other libraries and plain loops, losses first."""

from collections.abc import Callable

import pandas as pd

from figures.tables.markdown import marked, provenance, ratio, record, table

RECORD = "tests/benchmarks/records/peers.parquet"
NETWORKS = ("digits", "MLP", "CNN", "ResNet", "ViT-B")
OURS = "flatprobe"


def ratios(frame: pd.DataFrame, figure: str = "cpu_seconds") -> pd.DataFrame:
    """Median of flatprobe over that of each peer: a row per work and peer, the largest first, a column per network."""
    keys = ["work", "network"]
    medians = frame.groupby([*keys, "variant"], as_index=False)[figure].median().dropna()
    ours = medians["variant"] == OURS
    pairs = medians[~ours].merge(medians[ours], on=keys, suffixes=("", "_ours"))
    pairs["ratio"] = pairs[f"{figure}_ours"] / pairs[figure]
    found = pairs.pivot_table(index=["work", "variant"], columns="network", values="ratio")
    found = found[[name for name in NETWORKS if name in found]]
    return found.loc[found.max(axis=1).sort_values(ascending=False).index]


def peers() -> str:
    """Ratios of CPU time by network, and what else one side computes."""
    frame, metadata = record(RECORD)
    notes = frame.groupby("work", sort=False)["note"].first()
    found = ratios(frame)
    rows = [[work, peer, *map(_cell, values)] for (work, peer), *values in found.itertuples()]
    origin = provenance(RECORD, metadata) + f" Up to {int(frame['round'].max())} rounds."
    others = "\n".join(f"- {work}: {note}." for work, note in notes.items() if note)
    reading = "CPU time, flatprobe / peer. Bold: flatprobe is slower. What else one side computes, or how:"
    return table(["work", "beside", *found], rows, reading, others, origin, words=2)


def _cell(value: float) -> str:
    return "" if pd.isna(value) else marked(ratio(value), worse=value >= 1.005)


def memory() -> str:
    """Peak memory above what the process had before the work, the ratio, and copies of the weights for the ViT-B."""
    frame, metadata = record(RECORD)
    frame = frame.dropna(subset=["peak_mebibytes"])
    peaks = frame.set_index(["work", "network", "variant"])[["peak_mebibytes", "weights_mebibytes"]]
    rows = []
    for (work, name, variant), (peak, size) in peaks.iterrows():
        own = peaks.loc[(work, name, OURS), "peak_mebibytes"]
        over = "" if variant == OURS else _cell(own / peak)
        copies = f"{peak / size:.1f}" if name == "ViT-B" else ""
        rows.append([work, name, variant, f"{peak:.0f}", copies, over])
    columns = ["work", "network", "", "peak, MiB", "copies of the weights", "flatprobe / peer"]
    return table(columns, rows, provenance(RECORD, metadata), words=3)


def found() -> str:
    """What both sides found, in words."""
    frame, metadata = record(RECORD)
    rows = frame.loc[frame["found"] != "", ["work", "network", "found"]].drop_duplicates()
    return table(["work", "network", "found"], rows.values.tolist(), provenance(RECORD, metadata), words=3)


PEERS: dict[str, Callable[[], str]] = {"peers": peers, "peers_memory": memory, "peers_found": found}
