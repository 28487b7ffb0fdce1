"""Result of a tuning: a row per training, the chosen strength, and the runs trained with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from flatprobe.training.run import TrainingRun
from flatprobe.utils.results import Result

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]

SEARCH, FINAL = "search", "final"


@dataclass(frozen=True, kw_only=True, repr=False)
class Tuning(Result):
    """Strength chosen by validation, and the runs trained with it.

    Attributes:
        rows: one per training: `stage` ("search" or "final"), `strength`, `seed`, `train_loss`, `train_error`,
            `reached`, `diverged`. Rows of the search have a `validation_loss` and a `validation_error`, final rows a
            `test_loss` and a `test_error` where there was a test set. Everything else is NaN.
        runs: the final runs, one per seed, in the order of `settings["arguments"]["seeds"]`; empty where the result was
            loaded from a record (`TrainingRun.load` reads them from the folders in `out`).
    """

    rows: list[Row]
    runs: tuple[TrainingRun, ...] = field(default=(), compare=False)

    @property
    def table(self) -> list[Row]:
        """The rows of the search, by which the strength was chosen."""
        return [row for row in self.rows if row["stage"] == SEARCH]

    @property
    def strength(self) -> float:
        """The chosen strength."""
        return self._final("strength")[0]

    @property
    def at_edge(self) -> bool:
        """True where a better strength may lie outside the grid: at its largest strength, or its smallest but 0."""
        strengths = {row["strength"] for row in self.table}
        ends = {max(strengths), min(strengths) or max(strengths)}
        return len(strengths) > 1 and self.strength in ends

    @property
    def test_loss(self) -> list[float]:
        """The loss of each final run over the test set."""
        return self._final("test_loss")

    @property
    def test_error(self) -> list[float]:
        """The fraction of the test set that each final run misclassifies."""
        return self._final("test_error")

    def means(self) -> "pandas.DataFrame":
        """A row per strength: mean and standard deviation (ddof 1) of the validation figures over the seeds.

        Where a seed diverged, both are NaN.
        """
        frame = self.to_frame()
        groups = frame[frame["stage"] == SEARCH].groupby("strength")
        figures, diverged = groups[["validation_loss", "validation_error"]], groups["diverged"].sum()
        means, spread = figures.mean().where(diverged == 0), figures.std().where(diverged == 0).add_suffix("_std")
        return means.assign(**spread, diverged=diverged).reset_index()

    def summary(self) -> dict[str, float]:
        """The strength, with means over the seeds of its criterion and of the test figures, and their deviations."""
        criterion = f"validation_{self.settings['arguments']['criterion']}"
        chosen = [row[criterion] for row in self.table if row["strength"] == self.strength]
        figures = {"strength": self.strength, criterion: fmean(chosen)}
        for name in ("test_loss", "test_error"):
            values = self._final(name)
            if not math.isnan(values[0]):
                figures |= {name: fmean(values), f"{name}_std": stdev(values) if len(values) > 1 else math.nan}
        return figures

    def to_frame(self) -> "pandas.DataFrame":
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Tuning":
        """The inverse of `to_frame`."""
        rows = frame.astype(object).to_dict("records")
        return cls(rows=[{str(name): value for name, value in row.items()} for row in rows], settings=settings)

    def __repr__(self) -> str:
        """The headline figures on one line, with a note where the grid ended too early."""
        line = super().__repr__()
        return f"{line[:-1]}, at the edge of the grid: extend strengths)" if self.at_edge else line

    def _final(self, column: str) -> list[float]:
        return [float(row[column]) for row in self.rows if row["stage"] == FINAL]


def best_strength(rows: Sequence[Row], criterion: str) -> float:
    """The strength with the lowest mean over the seeds; of equals the smallest, which interferes least.

    Args:
        rows: of the search. One value that is not finite makes its strength the worst.
        criterion: `"loss"` or `"error"`.

    Returns:
        The strength.

    Raises:
        RuntimeError: if no strength has a finite mean.

    >>> rows = [{"strength": s, "validation_loss": l} for s, l in ((1.0, 0.5), (0.1, 0.5), (10.0, math.nan))]
    >>> best_strength(rows, "loss")
    0.1
    """
    values: dict[float, list[float]] = {}
    for row in rows:
        values.setdefault(row["strength"], []).append(row[f"validation_{criterion}"])
    means = {strength: fmean(own) for strength, own in sorted(values.items()) if math.isfinite(fmean(own))}
    if not means:
        msg = (
            f"no strength trained with all of its seeds: each of {', '.join(map(str, sorted(values)))} has a run "
            f"that diverged or whose validation {criterion} is not finite. Lower the learning rate, or give smaller "
            "strengths"
        )
        raise RuntimeError(msg)
    return min(means, key=means.__getitem__)
