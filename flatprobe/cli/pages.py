"""The page of the demonstration."""

from pathlib import Path

from flatprobe.studies.compare import Comparison

DEMO_TITLE = "Natural against random labels on the digits"
DEMO_INTRODUCTION = (
    "Three networks were trained on 1,500 handwritten digits (8x8 pixels) with their own labels, three on the "
    "same images with random labels, each to 100 % training accuracy. All of them fit their training data perfectly; "
    "only the first three can generalize. The probes below measure how they differ, each on its own training data."
)
DEMO_NOTE = (
    "At the first epoch with 100 % training accuracy, the loss is several times larger on random labels than on "
    "natural ones. An allowed increase of 0.05 therefore means different things for the two. The measurements "
    "named \u201cequal loss\u201d repeat the radii after training every network to a loss of at most {loss}."
)


def demo_report(comparison: Comparison, path: Path) -> Path:
    """The page of `flatprobe demo`."""
    from flatprobe.report import report
    from flatprobe.studies.demo import EQUAL_LOSS

    return report(
        comparison,
        path,
        title=DEMO_TITLE,
        introduction=DEMO_INTRODUCTION,
        notes=[DEMO_NOTE.format(loss=EQUAL_LOSS)],
    )
