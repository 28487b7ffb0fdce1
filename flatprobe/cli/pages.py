"""The table on the terminal, and the text of the reports; the table needs no library of the reports."""

import math
from pathlib import Path
from typing import Any

from flatprobe.cli.inputs import group_of
from flatprobe.studies.compare import Comparison
from flatprobe.utils.results import printable

DEMO_TITLE = "Natural against random labels on the digits"
DEMO_INTRODUCTION = (
    "Three networks were trained on 1,500 handwritten digits (8x8 pixels) with their own labels, three on the "
    "same images with random labels, each to 100 % training accuracy. All of them fit their training data perfectly; "
    "only the first three can generalize. The probes below measure how they differ, each on its own training data."
)
DEMO_NOTE = (
    "At the first epoch with 100 % training accuracy, the loss is several times larger on random labels than on "
    "natural ones. An allowed increase of 0.05 therefore means different things for the two. The measurements "
    "named \u201cequal loss\u201d repeat the radii after training every network to a loss of at most {loss}."
)


def demo_report(comparison: Comparison, path: Path) -> Path:
    """The page of `flatprobe demo`."""
    from flatprobe.report import write_report
    from flatprobe.studies.demo import EQUAL_LOSS

    return write_report(
        comparison.results,
        path,
        groups=comparison.groups,
        title=DEMO_TITLE,
        introduction=DEMO_INTRODUCTION,
        notes=[DEMO_NOTE.format(loss=EQUAL_LOSS)],
    )


def records_report(folder: Path, path: Path, *, title: str) -> Path:
    """The page of `flatprobe report`; networks whose names differ only in a final number form a group."""
    from flatprobe.report import load_records, write_report

    records = load_records(folder)
    names = dict.fromkeys(name for results in records.values() for name in results)
    return write_report(records, path, groups={name: group_of(name) for name in names}, title=title)


def summary_table(comparison: Comparison) -> Any:
    """One row per measurement and one column per group, with mean and standard deviation over the networks."""
    from rich.table import Column, Table
    from rich.text import Text

    headline = comparison.headline()
    groups = list(dict.fromkeys(headline["group"]))
    table = Table("measurement", "figure", *(Column(Text(printable(group))) for group in groups))
    for (measurement, figure), rows in headline.groupby(["measurement", "figure"], sort=False):
        cells = dict(zip(rows["group"], map(_cell, rows["mean"], rows["std"]), strict=True))
        words = Text(printable(str(measurement)).replace("_", " ")), Text(str(figure))
        table.add_row(*words, *(cells.get(group, "") for group in groups))
    return table


def _cell(mean: float, std: float) -> str:
    """A mean, with its standard deviation if that is defined."""
    return f"{mean:.4g}" if math.isnan(std) else f"{mean:.4g} \u00b1 {std:.2g}"
