"""Explanations under the tables of the answer."""

from collections.abc import Mapping, Sequence

from flatprobe.probes.geometric import GeometricMargins
from flatprobe.report.answer import Topic
from flatprobe.utils.results import Result

_INTERVALS = "Intervals are 95 %, in brackets."
_BOUNDS = (
    "The brackets of geometric margins are no confidence intervals: they are [lower bound, shortest distance found], "
    "each a median over the samples."
)
_MARKS = (
    "A network is marked best or worst where it is separated from all others. The intervals behind the marks hold for "
    "all pairs of networks at once."
)
_GROUPS = (
    "Groups: mean over their networks ± standard deviation across them (n - 1). The ratio of two groups' means has "
    "its standard error to first order."
)


def legend(topics: Sequence[Topic], records: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Paragraphs on the intervals, marks and groups that these tables hold."""
    cells = [cell for topic in topics for body in topic.table.bodies for row in body.rows for cell in row.cells]
    distances = any(isinstance(result, GeometricMargins) for own in records.values() for result in own.values())
    words = {
        _INTERVALS: any("[" in cell.small for cell in cells),
        _BOUNDS: distances,
        _MARKS: any(cell.mark for cell in cells),
    }
    sentences = " ".join(sentence for sentence, holds in words.items() if holds)
    grouped = any("group" in topic.table.kinds for topic in topics)
    return [own for own in (sentences, _GROUPS if grouped else "") if own]
