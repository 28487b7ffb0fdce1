"""What tuning returns: a row a training, the strength that was chosen, and the runs trained with it."""

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
    """A strength chosen by validation, and what was trained with it.

    Attributes:
        rows: one a training: `stage` ("search" or "final"), `strength`, `seed`, `train_loss`, `train_error`, `reached`,
            `diverged`; those of the search have a `validation_loss` and a `validation_error`, the final ones a
            `test_loss` and a `test_error` where there was a test set. What was not measured is NaN.
        runs: the final runs, one a seed, in the order of `settings["arguments"]["seeds"]`; none where the result was
            loaded from a record (`TrainingRun.load` reads them from the folders in `out`).
    """

    rows: list[Row]
    runs: tuple[TrainingRun, ...] = field(default=(), compare=False)

    @property
    def table(self) -> list[Row]:
        """The rows of the search: what the strength was chosen by."""
        return [row for row in self.rows if row["stage"] == SEARCH]

    @property
    def strength(self) -> float:
        """The strength that was chosen."""
        return float(next(row["strength"] for row in self.rows if row["stage"] == FINAL))

    @property
    def at_edge(self) -> bool:
        """Whether a better strength may lie outside the grid: the chosen one is its largest, or its smallest but 0."""
        strengths = {row["strength"] for row in self.table}
        return self.strength == max(strengths) or (self.strength == min(strengths) and self.strength > 0)

    @property
    def test_loss(self) -> list[float]:
        """The loss over the test set of each final run."""
        return self._final("test_loss")

    @property
    def test_error(self) -> list[float]:
        """The fraction of the test set that each final run has wrong."""
        return self._final("test_error")

    def means(self) -> "pandas.DataFrame":
        """A row a strength: mean and standard deviation (ddof 1) over the seeds of what validation measured."""
        frame = self.to_frame()
        frame = frame[frame["stage"] == SEARCH]
        # A seed that diverged makes the mean NaN, as it made the strength the worst.
        groups = frame.groupby("strength")
        figures = groups[["validation_loss", "validation_error"]]
        diverged = groups["diverged"].sum()
        means, spread = figures.mean().where(diverged == 0), figures.std().where(diverged == 0).add_suffix("_std")
        return means.assign(**spread, diverged=diverged).reset_index()

    def summary(self) -> dict[str, float]:
        """The strength; means over the seeds of what it was chosen by and of the test, with standard deviations."""
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
        names = [str(name) for name in frame]
        values = frame.astype(object).to_numpy().tolist()
        return cls(rows=[dict(zip(names, row, strict=True)) for row in values], settings=settings)

    def __repr__(self) -> str:
        """The headline figures on one line, and whether the grid ended too early."""
        line = super().__repr__()
        return f"{line[:-1]}, at the edge of the grid: extend strengths)" if self.at_edge else line

    def _final(self, column: str) -> list[float]:
        return [float(row[column]) for row in self.rows if row["stage"] == FINAL]


def best_strength(rows: Sequence[Row], criterion: str) -> float:
    """The strength with the lowest mean over the seeds; of equals the smallest, which interferes least.

    Args:
        rows: of the search. One that is not finite makes its strength the worst.
        criterion: `"loss"` or `"error"`.

    Returns:
        The strength.

    Raises:
        RuntimeError: if no strength has a finite mean.

    >>> rows = [{"strength": s, "validation_loss": l} for s, l in ((1.0, 0.5), (0.1, 0.5), (10.0, math.nan))]
    >>> best_strength(rows, "loss")
    0.1
    """
    means: dict[float, float] = {
        strength: fmean(row[f"validation_{criterion}"] for row in rows if row["strength"] == strength)
        for strength in sorted({row["strength"] for row in rows})
    }
    finite = {strength: mean for strength, mean in means.items() if math.isfinite(mean)}
    if not finite:
        msg = (
            f"at each of the strengths {', '.join(map(str, means))} a seed diverged, or its validation {criterion} is "
            "not finite; expected at least one that trains: lower the learning rate, or give smaller strengths"
        )
        raise RuntimeError(msg)
    return min(finite, key=finite.__getitem__)
