"""`python -m tests.benchmarks [NAME ...]`: run the benchmarks, write their records, print ratios.

`python -m tests.benchmarks peers` needs an environment of its own: `make bench-peers`.
"""

import sys
import time
from collections.abc import Callable, Iterator

import pandas as pd

from flatprobe.utils.results import environment
from flatprobe.utils.tables import write_table
from tests.benchmarks import (
    accuracy,
    attacks,
    jacobian,
    operators,
    optimizers,
    passes,
    penalties,
    radius,
    sharpness,
    smoothing,
)
from tests.benchmarks.harness import RECORDS, Row

BENCHMARKS: dict[str, Callable[[], Iterator[Row]]] = {
    "batch_size": passes.batch_size_rows,
    "passes": passes.rows,
    "radius": radius.rows,
    "jacobian": jacobian.rows,
    "operators": operators.rows,
    "sharpness": sharpness.rows,
    "smoothing": smoothing.rows,
    "attacks": attacks.rows,
    "accuracy": accuracy.rows,
    "optimizers": optimizers.rows,
    "penalties": penalties.rows,
}
REFERENCE = {
    "batch_size": "batch size 64",
    "passes": "bare forward passes",
    "radius": "flatprobe",
    "jacobian": "flatprobe",
    "operators": "certified",
    "sharpness": "two gradients",
    "smoothing": "flatprobe",
    "attacks": "ddn 50",
    "accuracy": "flatprobe",
    "optimizers": "sgd",
    "penalties": "plain",
}


def ratios(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Median of the rounds, and its ratio to the reference variant's, for each figure."""
    figures = [
        column
        for column in (
            "seconds",
            "seconds_per_direction",
            "evaluations_per_direction",
            "products",
            "peak_mebibytes",
            "median_distance",
        )
        if column in frame
    ]
    keys = [column for column in ("network", "layer", "classes") if column in frame]
    medians = frame.groupby([*keys, "variant"], sort=False)[figures].median().reset_index()
    reference = medians[medians["variant"] == REFERENCE[name]].drop(columns="variant")
    joined = medians.merge(reference, on=keys, suffixes=("", "_reference"))
    for figure in figures:
        joined[f"{figure}_ratio"] = joined[figure] / joined.pop(f"{figure}_reference")
    return joined


def main(names: list[str]) -> None:
    if names[:1] == ["peers"]:
        from tests.benchmarks.peers.__main__ import main as peers

        peers(names[1:])
        return
    for name in names or BENCHMARKS:
        start = time.monotonic()
        frame = pd.DataFrame(BENCHMARKS[name]())
        metadata = {"kind": "benchmark", "command": f"python -m tests.benchmarks {name}", "environment": environment()}
        write_table(frame, RECORDS / f"{name}.parquet", metadata)
        print(f"\n{name} ({time.monotonic() - start:.0f} s; ratios to {REFERENCE[name]})")
        with pd.option_context("display.width", 200, "display.precision", 3):
            print(ratios(name, frame).to_string(index=False))


if __name__ == "__main__":
    main(sys.argv[1:])
