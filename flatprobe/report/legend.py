"""Explanations under the tables of the answer."""

import math
from collections.abc import Mapping, Sequence

from flatprobe.probes.geometric import GeometricMargins
from flatprobe.report.answer import Topic
from flatprobe.report.figures import Figure
from flatprobe.utils.numbers import three
from flatprobe.utils.results import Result

_ALIKE = 2.0  # factor between training losses, at most, of networks that are compared without a word
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


def unequal_losses(figures: Sequence[Figure]) -> str:
    """A sentence on networks whose training losses differ by more than a factor of two; "" for others."""
    losses = next((own.values for own in figures if own.figure == "train_loss"), {})
    known = {name: own.value for name, own in losses.items() if not math.isnan(own.value)}
    if len(known) < 2:
        return ""
    least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[most] <= _ALIKE * known[least]:
        return ""
    return (
        f"The training losses are from {three(known[least])} ({least}) to {three(known[most])} ({most}). Radii, "
        "margins and Jacobian norms change as training goes on: networks at other training losses are not alike in "
        "that."
    )
