"""The figures of a training against the epoch, or of other networks against another number."""

from flatprobe.report.section import Panel
from flatprobe.studies.comparison import Comparison


def trajectory(comparison: Comparison) -> Panel | None:
    """The picture of the figures against the number."""
    return None
