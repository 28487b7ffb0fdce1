"""The parts of a page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of words under a heading; each row begins with what it is about."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One picture with what it says.

    Attributes:
        title: of the section.
        sentence: what is measured, and how to read the picture.
        picture: a PNG file's bytes.
        alternative: the picture in words, for those who cannot see it.
        table: the figures behind it, where no other section has them.
    """

    title: str
    sentence: str
    picture: bytes
    alternative: str
    table: Table | None = None
