"""One kind of section: its words, its picture and its numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.report.section import Table

Results = Mapping[str, Any]
Groups = Mapping[str, str] | None


@dataclass(frozen=True)
class Kind:
    """Words, picture and numbers of the measurements that share a section.

    Attributes:
        title: title of a section of several measurements.
        sentence: description and reading; measurements with the same sentence share a section.
        particulars: what may differ between the measurements of a section, such as the law.
        picture: axes or figure of matplotlib.
        shows: form and quantity of the picture, for the alternative text.
        table: the figures.
        suffix: what follows the measurement's name in the title, where one measurement has several pictures.
        live: quantity of its interactive picture, where there is one.
        values: figure per network, for the alternative text; None takes the headline figures.
    """

    title: str
    sentence: Callable[[Results], str]
    picture: Callable[[Results, Groups], Any]
    shows: str
    table: Callable[[Results], Table | None]
    particulars: Callable[[Results], str] = lambda _results: ""
    suffix: str = ""
    live: str = ""
    values: Callable[[Results], tuple[str, dict[str, float]]] | None = None
