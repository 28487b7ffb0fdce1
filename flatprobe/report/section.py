"""Sections and tables of a page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; the first cell of a row names its subject."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One picture with its description.

    Attributes:
        title: title of the section.
        sentence: description of the measurement, and reading of the picture.
        picture: bytes of a PNG file.
        alternative: alternative text of the picture.
        table: the figures of the picture, unless another section has them.
    """

    title: str
    sentence: str
    picture: bytes
    alternative: str
    table: Table | None = None
