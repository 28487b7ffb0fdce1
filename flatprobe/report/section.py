"""Sections, panels and tables of a page."""

import csv
import io
import math
import re
from dataclasses import dataclass
from typing import Literal

_NUMBER = re.compile(r"[≥ \[]*(-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?![\d.:/]|[a-z])")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        words: text of the cell.
        small: text under it.
        value: number by which the column is sorted; None takes the number at the beginning of the words.
        mark: "best" or "worst", where the figure is separated from all others.
        note: text that is shown while the pointer rests on the cell.
    """

    words: str
    small: str = ""
    value: float | None = None
    mark: Literal["", "best", "worst"] = ""
    note: str = ""

    @property
    def number(self) -> float | None:
        """Number by which the column is sorted, or None.

        >>> Cell("1,234 ± 5").number, Cell("≥ 0.25").number, Cell("mlp-3").number, Cell("", value=2.0).number
        (1234.0, 0.25, None, 2.0)
        """
        if self.value is not None:
            return None if math.isnan(self.value) else self.value
        found = _NUMBER.match(self.words)
        return float(found[1].replace(",", "")) if found else None


@dataclass(frozen=True)
class Row:
    """A row of cells: "" for a network, "member" of a group, "group", or "ratio" of two groups."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Body:
    """Rows that are sorted among each other, or stay as they are."""

    rows: tuple[Row, ...]
    fixed: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; the first cell of a row names its subject."""

    heading: tuple[str | Cell, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    kinds: tuple[str, ...] = ()

    @property
    def heads(self) -> tuple[Cell, ...]:
        """The cells of the heading."""
        return tuple(map(_cell, self.heading))

    @property
    def bodies(self) -> tuple[Body, ...]:
        """Rows of groups, which stay on top, and rows of networks."""
        kinds = self.kinds or ("",) * len(self.rows)
        rows = [Row(tuple(map(_cell, row)), kind) for row, kind in zip(self.rows, kinds, strict=True)]
        fixed = tuple(row for row in rows if row.kind in ("group", "ratio"))
        others = tuple(row for row in rows if row.kind not in ("group", "ratio"))
        return tuple(body for body in (Body(fixed, fixed=True), Body(others)) if body.rows)

    @property
    def csv(self) -> str:
        """The cells as comma-separated values, as the page shows them."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in (self.heads, *(row.cells for body in self.bodies for row in body.rows)):
            writer.writerow([" ".join(filter(None, (cell.words, cell.small))) for cell in row])
        return text.getvalue()


def _cell(content: str | Cell) -> Cell:
    return content if isinstance(content, Cell) else Cell(content)


@dataclass(frozen=True)
class Panel:
    """One picture with its numbers.

    Attributes:
        name: name of the panel, unique on the page.
        caption: name and what differs from the section's other panels.
        picture: SVG element; "" for a single number, which is a row of the table.
        alternative: alternative text, which says what the picture shows.
        table: the figures of the picture, unless another panel has them.
        live: HTML of an interactive picture.
    """

    name: str
    caption: str
    picture: str
    alternative: str
    table: Table | None = None
    live: str = ""


@dataclass(frozen=True)
class Section:
    """The pictures of one kind of measurement under one description.

    Attributes:
        title: title of the section.
        sentence: description of the measurement, and reading of its pictures.
        panels: one panel per measurement.
    """

    title: str
    sentence: str
    panels: tuple[Panel, ...]

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return f"section-{anchor(self.title)}"


def anchor(title: str) -> str:
    """A title as part of an address.

    >>> anchor("Landscape: loss"), anchor("√")
    ('landscape-loss', 'part')
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "part"


def inline(element: str) -> str:
    """An SVG element without the style that holds for the whole page, and with coordinates of two decimals.

    Words between tags, such as the numbers at an axis, stay as they are.

    >>> inline('<svg><style type="text/css">*{fill: red}</style><path d="M 76.564931 -0.25"/><text>0.175</text></svg>')
    '<svg><path d="M 76.56 -0.25"/><text>0.175</text></svg>'
    """
    element = re.sub(r"(?:<defs>\s*)?<style[^>]*>.*?</style>(?:\s*</defs>)?\s*", "", element, flags=re.DOTALL)
    return re.sub("<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), element)
