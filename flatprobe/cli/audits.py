"""An audit as a table on the terminal, with its verdicts."""

import math
import sys
from typing import Any

from flatprobe.studies.audit import Audit, Row
from flatprobe.utils.numbers import MISSING, percent, three


def show(result: Audit) -> None:
    """The table, the changes and the verdicts, on stdout."""
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(audit_table(result))
    for line in lines(result):
        console.print(line, markup=False)


def audit_table(result: Audit) -> Any:
    """One row per probe and one column per change, with the relative change of the probe's first figure."""
    from rich.table import Table

    table = Table("probe", "figure", "as given", *(change.replace("_", " ") for change in result.applied))
    rows: dict[str, dict[str, Row]] = {}
    for row in result.headline():
        rows.setdefault(row.probe, {})[row.change] = row
    for probe, by_change in rows.items():
        first = next(iter(by_change.values()))
        cells = (cell(by_change[change]) for change in result.applied)
        table.add_row(probe.replace("_", " "), first.figure.replace("_", " "), three(first.before), *cells)
    return table


def cell(row: Row) -> str:
    """The relative change in percent, or "stays" within the tolerance or the spread over draws."""
    if not row.moves:
        relative = row.spread / abs(row.before) if row.before else math.nan
        return "stays" if math.isnan(relative) else f"stays (draws \u00b1 {percent(relative)} %)"
    change = row.relative_change
    return MISSING if math.isnan(change) else f"{'+' if change > 0 else ''}{percent(change)} %"


def lines(result: Audit) -> list[str]:
    """The applied changes, the skipped ones with reasons, and the verdicts."""
    said = [
        f"{change.replace('_', ' ')}: {len(made['places'])} of {len(made['places']) + len(made['left_out'])} layers, "
        f"same {made['keeps']}"
        for change, made in result.applied.items()
    ]
    said += [f"{change.replace('_', ' ')}: not applied, {reason}" for change, reason in result.missing.items()]
    said += [
        f"{row.probe.replace('_', ' ')}: its first figure stays under {row.change.replace('_', ' ')}, and "
        f"{row.figure.replace('_', ' ')} moves by {cell(row)}"
        for row in result.others()
    ]
    verdicts = result.verdicts()
    for verdict in dict.fromkeys(verdicts.values()):
        names = [probe.replace("_", " ") for probe, own in verdicts.items() if own == verdict]
        said.append(f"{verdict}: {', '.join(names)}")
    return said
