"""Markdown: tables, numbers, and where a record's numbers come from."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "_tables"
GAP = "\N{NO-BREAK SPACE}"  # keeps a number with its spread in one line of a narrow cell


def record(path: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and metadata of a committed record, by its path in the repository."""
    words = pq.read_schema(ROOT / path).metadata[b"flatprobe"]
    return pd.read_parquet(ROOT / path), json.loads(words)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *notes: str, words: int = 1) -> str:
    """A pipe table with notes; the first columns, of words, are left-aligned, the others right."""
    head = [_line(columns), _line(["---"] * words + ["---:"] * (len(columns) - words))]
    return "\n".join([*head, *map(_line, rows), "", *(f"{note}\n" for note in notes)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def provenance(path: str, metadata: dict[str, Any]) -> str:
    """The command, the record, the versions and the machine, in one line."""
    environment, command = metadata["environment"], metadata["command"]
    versions = environment["versions"]
    return (
        f"Command: `{command}`. Record: `{path}` (flatprobe {versions['flatprobe']}, torch {versions['torch']}, "
        f"{environment['threads']} thread, {environment['machine']})."
    )


def ratio(value: float) -> str:
    """Two significant digits: 0.56, 3.4, 28."""
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def marked(text: str, *, worse: bool) -> str:
    """In bold where the comparison goes against flatprobe, or against the claim."""
    return f"**{text}**" if worse else text


def spread(values: pd.Series, digits: int) -> str:
    """Mean and standard deviation (ddof 1)."""
    return f"{values.mean():.{digits}f}{GAP}±{GAP}{values.std():.{digits}f}"
