"""Report section of generalization itself."""

from collections.abc import Mapping
from typing import Any

from flatprobe.plotting import generalization, png
from flatprobe.probes.generalization import Generalization
from flatprobe.report.section import Section, Table
from flatprobe.utils.numbers import MISSING, percent, three

Results = Mapping[str, Any]
Groups = Mapping[str, str] | None
_FIGURES = ("train_accuracy", "test_accuracy", "accuracy_gap", "train_loss", "test_loss", "loss_gap")


def section(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with accuracy and loss on the training and test samples, and their gaps."""
    sentence = (
        "The fraction of training samples (filled) and of test samples (open) that are classified correctly, with "
        "95 % intervals. The gap between the two is what the other measurements are to explain."
    )
    words = f"Training and test accuracy of {', '.join(results)}"
    return [Section(title, sentence, png(generalization.draw(results, groups=groups)), words, table(results))]


def table(results: Mapping[str, Generalization]) -> Table:
    """Accuracies, losses and gaps with their 95 % intervals."""
    measured = {name: result.summary() for name, result in results.items()}
    shown = [figure for figure in _FIGURES if any(figure in own for own in measured.values())]
    rows = [
        (name, *(cell(results[name], figure) if figure in own else MISSING for figure in shown))
        for name, own in measured.items()
    ]
    return Table(("network", *(figure.replace("_", " ") for figure in shown)), tuple(rows))


def cell(result: Generalization, figure: str) -> str:
    """A figure with its interval, in percent for accuracies."""
    written = percent if "accuracy" in figure else three
    low, high = map(written, result.interval(figure))
    sign = " %" if "accuracy" in figure else ""
    return f"{written(result.summary()[figure])}{sign} [{low}, {high}]"
