"""Small tables in HTML, as notebooks show results."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from flatprobe.utils.numbers import three

_LONGEST = 120  # characters of a cell


def table(rows: Iterable[Sequence[object]], head: Sequence[object] = ()) -> str:
    """A table; numbers have three significant digits and stand on the right, all else is text.

    Args:
        rows: cells by row; the first cell of a row names it.
        head: names of the columns.

    >>> table([("mean", 0.12345)], ("figure", "value"))[:62]
    '<table><thead><tr><th>figure</th><th>value</th></tr></thead><t'
    """
    heading = "".join(f"<th>{escape(_words(cell))}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{heading}</tr></thead>' if head else ''}<tbody>{lines}</tbody></table>"


def described(
    name: str, rows: Iterable[Sequence[object]], facts: Iterable[Sequence[object]] = (), head: Sequence[object] = ()
) -> str:
    """A table under a name, with a folded table of facts below it.

    Args:
        name: name of the result's class.
        rows: the figures.
        facts: data, seed and arguments.
        head: names of the columns of the figures.
    """
    folded = table(facts) if (facts := [*facts]) else ""
    details = f"<details><summary>data and arguments</summary>{folded}</details>" if folded else ""
    return f"<div><strong>{escape(name)}</strong>{table(rows, head)}{details}</div>"


def facts_of(settings: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Network, data and arguments of a measurement, as far as its settings hold them."""
    subject = settings.get("subject") or {}
    data, network = (subject.get(part) or {} for part in ("data", "network"))
    source = data.get("source") or {}
    named: dict[str, object] = {
        "network": network.get("class"),
        "data": " ".join(str(source[key]) for key in ("name", "split") if source.get(key)) or None,
        "samples": data.get("samples"),
        "fingerprint of the data": data.get("fingerprint"),
    }
    found = [(name, value) for name, value in named.items() if value is not None]
    return found + [(name, value) for name, value in (settings.get("arguments") or {}).items()]


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f'<td style="text-align:left">{escape(_words(value))}</td>'
    shown = f"{int(value):,}" if float(value).is_integer() else three(value)
    return f'<td style="text-align:right">{escape(shown)}</td>'


def _words(value: object) -> str:
    words = str(value).replace("_", " ") if isinstance(value, str) and value.isidentifier() else str(value)
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}\u2026"
