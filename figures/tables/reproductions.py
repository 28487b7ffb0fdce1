"""Tables of the reproductions, from records and registry: every item, every rule, reasons, counts, README's rows."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from analyses.listing import counts, rows
from analyses.record import read_record, record_path
from analyses.registry import SOURCES, registry
from analyses.reproduction import REFUTED, VERDICTS, Reproduction
from figures.tables.markdown import GAP, ROOT, marked, table

README = ROOT / "README.md"
BEGIN, END = "<!-- reproductions: rewritten by `python -m figures.tables` -->", "<!-- end of the reproductions -->"


@dataclass(frozen=True)
class Headline:
    """One row of README's table: an outcome of a record, by its rule."""

    label: str
    name: str  # the item's id
    rule: str
    preset: str = "cpu"


HEADLINES = (
    Headline(
        "Poggio et al. (2017), Table 1: flatness radius, natural / random labels, n = 10,000",
        "T3-T1",
        "natural labels flatter, all parameters, first 100 %, n = 10,000",
    ),
    Headline(
        "Sokolic et al. (2017), Table II: points gained by the Jacobian penalty, n = 1,000",
        "S17-T2",
        "the Jacobian penalty leads at n = 1,000",
    ),
    Headline("the same, n = 5,000", "S17-T2", "the Jacobian penalty leads at n = 5,000"),
)


@cache
def metadata(name: str, preset: str) -> dict[str, Any]:
    """The metadata of a committed record."""
    return read_record(name, preset)[1]


def recorded(source: str = "") -> Iterator[tuple[str, str]]:
    """Id and preset of every committed record, in the order of the registry; quick ones are trials."""
    for name, item in registry().items():
        if isinstance(item, Reproduction) and name.startswith(source):
            yield from (
                (name, preset) for preset in item.presets if preset != "quick" and record_path(name, preset).exists()
            )


def count() -> str:
    """Number of items per source and verdict, or state."""
    columns = (*VERDICTS, "ready", "open", "unavailable")
    listed = rows(registry().values())
    lines = []
    for source in (*SOURCES, ""):
        own = [row for row in listed if row["id"].startswith(source)]
        found = counts(own)
        lines.append([source or "all", str(len(own)), *(str(found.get(name, 0)) for name in columns)])
    note = "Ready: written, and not run. Open: not written. Unavailable: no data, or no experiment."
    return table(["source", "items", *columns], lines, note)


def items() -> str:
    """Every item: claim, verdict, what differs or is missing, cost."""
    lines = []
    for row in rows(registry().values()):
        verdicts = row["verdicts"].values()
        verdict = "; ".join(f"*{one}*" for one in dict.fromkeys(verdicts)) or row["state"]
        lines.append(
            [f"`{row['id']}`", _cell(f"{row['source']}: {row['claim']}"), verdict, _cell(row["reason"] or row["cost"])]
        )
    return table(["id", "claim", "verdict", "CPU time, or what is missing"], lines, words=4)


def outcomes(source: str) -> str:
    """Every rule of every record of a source."""
    lines = []
    if not any(recorded(f"{source}-")):
        return "No item of this source has a record.\n"
    for name, preset in recorded(f"{source}-"):
        found = metadata(name, preset)
        label = f"`{name}`" if preset == "cpu" else f"`{name}`, {preset}"
        for outcome in found["outcomes"]:
            rule = _cell(outcome["rule"])
            rule = f"*{rule}*" if outcome["beside"] else rule
            verdict = marked(outcome["verdict"], worse=outcome["verdict"] == REFUTED)
            lines.append([label, rule, verdict, ours(outcome), number(outcome["published"]), f"{outcome['seeds']:,}"])
    note = "*Italics*: our observation beside the claim, which does not count. Intervals are Student's, at 95 %."
    columns = ["item", "rule", "verdict", "ours", "published", "seeds or problems"]
    return table(columns, lines, note, _origins(source), words=3)


def reasons() -> str:
    """The refuted rules that count, with the likeliest reason and the experiment that tested it."""
    found = []
    for name, preset in recorded():
        own = metadata(name, preset)
        for outcome in own["outcomes"]:
            if outcome["verdict"] == REFUTED and not outcome["beside"]:
                seeds = f"{outcome['seeds']:,} seeds or problems"
                head = f"**`{name}`: {_cell(outcome['rule'])}.** {ours(outcome)}, {seeds}."
                reason = own["reasons"].get(outcome["rule"], "No reason is known.")
                found.append(f"- {head} {_cell(reason)}")
    return "\n".join(found) + "\n"


def headlines() -> str:
    """README's rows, and the count of verdicts."""
    lines = []
    for row in HEADLINES:
        own = metadata(row.name, row.preset)["outcomes"]
        (outcome,) = (entry for entry in own if entry["rule"] == row.rule)
        interval = "" if outcome["interval"] is None else f" [{', '.join(_fixed(x) for x in outcome['interval'])}]"
        measured = f"{_fixed(outcome['effect'])}{interval}".replace(" ", GAP)
        lines.append([row.label, outcome["verdict"], _fixed(outcome["published"]), measured])
    found = counts(rows(registry().values()))
    said = ", ".join(f"{found.get(verdict, 0)} *{verdict}*" for verdict in VERDICTS)
    total = f"Of {len(registry())} items of five sources: {said}. [All of them](docs/reproductions.md)."
    return table(["claim", "verdict", "published", "ours [95 %]"], lines, total, words=2)


def rewrite_readme(text: str) -> str:
    """README with the present rows between its two markers."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{headlines()}{END}{rest.split(END)[1]}"


def ours(outcome: dict[str, Any]) -> str:
    """Effect, interval and unit of an outcome."""
    bounds = outcome["interval"] or ()
    known = [number(bound) for bound in bounds if str(bound) != "nan"]
    interval = f" [{', '.join(known)}]" if known else ""
    return _cell(
        f"{number(outcome['effect'])}{interval}".replace(" ", GAP) + (f" {outcome['unit']}" if outcome["unit"] else "")
    )


def number(value: float | str | None) -> str:
    """Four significant digits, or whole numbers; nothing for None."""
    if value is None:
        return ""
    value = float(value)
    if value.is_integer() and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _fixed(value: float | str) -> str:
    return f"{float(value):.1f}"


def _cell(text: str) -> str:
    return re.sub(r"([|*_<$])", r"\\\1", text).replace("\n", " ")


def _origins(source: str) -> str:
    found: dict[str, list[str]] = {}
    for name, preset in recorded(f"{source}-"):
        own = metadata(name, preset)
        versions, environment = own["environment"]["versions"], own["environment"]
        origin = f"flatprobe {versions['flatprobe']}, torch {versions['torch']}, {environment['machine']}"
        found.setdefault(origin, []).append(f"{name} ({preset})" if preset != "cpu" else name)
    measured = "; ".join(f"{', '.join(names)}: {origin}" for origin, names in found.items())
    return f"Command: `python -m analyses ID --preset cpu`. Record: `records/ID-cpu.parquet`. {measured}."


REPRODUCTIONS: dict[str, Callable[[], str]] = {
    "reproductions_count": count,
    "reproductions_items": items,
    "reproductions_reasons": reasons,
    **{f"reproductions_{source.lower()}": partial(outcomes, source) for source in SOURCES},
}
