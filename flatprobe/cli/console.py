"""Comparisons as tables on the terminal, with the numbers and names of the page."""

import math
import sys
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from flatprobe.studies.comparison import Comparison
from flatprobe.studies.differences import marks_of
from flatprobe.studies.facts import said_of_training
from flatprobe.studies.headlines import Headline, better, headline, invariant, unit
from flatprobe.studies.refusals import by_reason
from flatprobe.utils.grouping import caption
from flatprobe.utils.numbers import MISSING, plus_minus, three
from flatprobe.utils.results import printable

Figures = Mapping[str, Mapping[str, Headline]]  # measurement -> network -> headline

_WIDE = 4  # networks, at most, that are columns
_ACCURACIES = ("train_accuracy", "test_accuracy", "accuracy_gap")
_LOSSES = ("train_loss", "test_loss", "loss_gap")
_LEGEND = (
    "\N{UPWARDS ARROW} larger is better, \N{DOWNWARDS ARROW} smaller is better; ~ depends on the scale of the weights; "
    "* best, separated from all others at 95 % (all pairs at once)"
)
_ARROWS = {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}", None: ""}


def show(comparison: Comparison) -> None:
    """The tables, warnings and refusals: accuracy and loss first, then the headline figures."""
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, highlight=False)
    for table in (generalization_table(comparison), headline_table(comparison)):
        if table is not None:
            console.print(table)
    console.print(_LEGEND, markup=False)
    for sentence in said_of_training(comparison.results, comparison.facts):
        console.print(printable(sentence), markup=False)
    for warning in comparison.warnings:
        console.print(f"warning: {printable(warning)}", markup=False)


def tell_refusals(comparison: Comparison) -> None:
    """Print the refusals on stderr, a line per reason."""
    for what, reason in by_reason(comparison.refusals, names=caption):
        sys.stderr.write(f"not measured: {printable(what)}: {printable(reason)}\n")


def generalization_table(comparison: Comparison) -> Any:
    """Training and test accuracy, loss and gaps, a row per network; None where they were not measured."""
    from rich.table import Table

    results = comparison.results.get("generalization", {})
    if not results:
        return None
    figures = {name: result.summary() for name, result in results.items()}
    shown = [key for key in (*_ACCURACIES, *_LOSSES) if any(key in own for own in figures.values())]
    axis = [] if comparison.along is None else [comparison.along_name or "along"]
    heads = (f"{key.replace('_', ' ')}{' (%)' if key in _ACCURACIES else ''}" for key in shown)
    table = Table("network", *axis, *heads)
    for name in _in_order(comparison, results):
        cells = (
            MISSING if key not in figures[name] else three((100 if key in _ACCURACIES else 1) * figures[name][key])
            for key in shown
        )
        table.add_row(_text(name), *(_place(comparison, name) for _ in axis), *cells)
    return table


def headline_table(comparison: Comparison) -> Any:
    """The headline figures: measurements by groups or networks, or networks by measurements where these are many."""
    found = {
        key: {name: own for name, result in results.items() if (own := headline(result)) is not None}
        for key, results in comparison.results.items()
        if key != "generalization"
    }
    found = {key: own for key, own in found.items() if own}
    if not found:
        return None
    names = _in_order(comparison, {name: None for own in found.values() for name in own})
    members: dict[str, list[str]] = {}
    for name in names if comparison.along is None else ():
        members.setdefault(comparison.groups.get(name, name), []).append(name)
    if 1 < len(members) < len(names) and len(members) <= _WIDE:
        return _by_group(comparison, found, members)
    if len(names) <= _WIDE:
        return _by_measurement(comparison, found, names)
    return _by_network(comparison, found, names)


def _by_group(comparison: Comparison, found: Figures, members: Mapping[str, Sequence[str]]) -> Any:
    """Mean \u00b1 standard deviation over the networks of each group; the page has the networks."""
    from rich.table import Column, Table

    heads = (Column(_text(f"{group} (n = {len(own)})")) for group, own in members.items())
    table = Table("measurement", *heads, "unit; mean \u00b1 sd over networks")
    for key, cells in found.items():
        means = (_mean(cells, own) for own in members.values())
        table.add_row(_title(comparison, key), *means, unit(comparison.results[key]).partition(" [")[0])
    return table


def _by_measurement(comparison: Comparison, found: Figures, names: Sequence[str]) -> Any:
    from rich.table import Column, Table

    marks = _marks(comparison)
    table = Table("measurement", *(Column(_text(name)) for name in names), "unit and interval")
    for key, own in found.items():
        cells = (f"{own[name].words}{'*' if name in marks[key] else ''}" if name in own else MISSING for name in names)
        table.add_row(_title(comparison, key), *cells, unit(comparison.results[key]))
    return table


def _by_network(comparison: Comparison, found: Figures, names: Sequence[str]) -> Any:
    from rich.table import Column, Table

    marks = _marks(comparison)
    axis = [] if comparison.along is None else [comparison.along_name or "along"]
    heads = (Column(_title(comparison, key)) for key in found)
    table = Table(Column("network", overflow="fold"), *axis, *heads)
    for name in names:
        cells = (
            f"{three(cells[name].scale * cells[name].value)}{'*' if name in marks[key] else ''}"
            if name in cells
            else MISSING
            for key, cells in found.items()
        )
        table.add_row(_text(name), *(_place(comparison, name) for _ in axis), *cells)
    return table


def _mean(cells: Mapping[str, Headline], names: Sequence[str]) -> str:
    """Mean \u00b1 standard deviation over the networks of a group."""
    values = [cells[name].scale * cells[name].value for name in names if name in cells]
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return MISSING
    return plus_minus(mean(values), stdev(values) if len(values) > 1 else math.nan)


def _title(comparison: Comparison, key: str) -> Any:
    """The measurement with an arrow for its better direction, % where its numbers are, and ~ where it is rescaled."""
    results = comparison.results[key]
    first = next(iter(results.values()))
    found = headline(first)
    percent = " (%)" if found is not None and found.scale != 1 else ""
    scaled = "" if all(invariant(result) for result in results.values()) else " ~"
    return _text(f"{key.replace('_', ' ')}{percent}{_ARROWS[better(first)]}{scaled}")


def _marks(comparison: Comparison) -> dict[str, set[str]]:
    """Measurement -> the best network, if it is separated from all others."""
    marks = {key: marks_of(key, results, comparison.facts) for key, results in comparison.results.items()}
    return {key: {name for name, mark in own.items() if mark == "best"} for key, own in marks.items()}


def _place(comparison: Comparison, name: str) -> str:
    return f"{(comparison.along or {}).get(name, math.nan):g}"


def _in_order(comparison: Comparison, results: Mapping[str, object]) -> list[str]:
    return [name for name in comparison.networks if name in results]


def _text(words: str) -> Any:
    from rich.text import Text

    return Text(printable(words))


def catalogue_table() -> Any:
    """The probes: name, question, cost and needs."""
    from rich.table import Table

    from flatprobe.studies.catalogue import CATALOGUE
    from flatprobe.studies.compare import DEFAULT
    from flatprobe.studies.probes_by_name import CHOICES, LANDSCAPE, NAMED

    table = Table("probe", "question", "cost", "needs")
    for name in CHOICES:
        probe, arguments = NAMED.get(name, (LANDSCAPE, {}))
        entry = CATALOGUE[probe]
        own = ", ".join(f"{key}={value}" for key, value in arguments.items()) if name != probe else ""
        words = f"{entry.question} ({own})" if own else entry.question
        table.add_row(_text(f"{name}{'*' if name in DEFAULT else ''}"), words, entry.cost, entry.needs)
    return table


def estimate_table(rows: Sequence[Any]) -> Any:
    """Passes, gradients, memory and time, a row per measurement and network, and the sum."""
    from rich.table import Table

    table = Table("measurement", "network", "forward passes", "gradients", "memory (GB)", "time (s)")
    for row in rows:
        numbers = (three(math.nan if value is None else value) for value in (row.forward, row.gradients))
        seconds = three(math.nan if row.seconds is None else row.seconds)
        table.add_row(_text(row.measurement), _text(row.network), *numbers, three(row.gigabytes), seconds)
    known = [row for row in rows if row.seconds is not None]
    sums = (three(sum(getattr(row, name) for row in known)) for name in ("forward", "gradients"))
    most, total = max(row.gigabytes for row in rows), sum(row.seconds for row in known)
    table.add_row("all", "", *sums, three(most), three(total), style="bold")
    return table
