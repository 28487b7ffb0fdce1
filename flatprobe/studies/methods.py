"""Regularizers compared at their best strengths, on the same seeds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.training.tuning.grid import unregularized
from flatprobe.training.tuning.result import FINAL, Tuning
from flatprobe.training.tuning.tune import tune
from flatprobe.utils.arguments import Checked, one_of
from flatprobe.utils.results import file_stem

if TYPE_CHECKING:
    import pandas

_SHARED = ("network", "data", "validation", "test", "seeds", "out")
_FIGURES = ("test_error", "test_loss", "train_error", "train_loss")


@dataclass(frozen=True)
class TunedMethods:
    """One tuning per method, on the same training sets, validation samples and seeds.

    Attributes:
        tunings: name of the method -> its tuning.
    """

    tunings: dict[str, Tuning]

    def to_frame(self) -> "pandas.DataFrame":
        """The rows of all tunings, as in `Tuning.rows`, after a column `method`."""
        import pandas as pd

        rows = [{"method": name, **row} for name, tuning in self.tunings.items() for row in tuning.rows]
        return pd.DataFrame(rows)

    def table(self) -> "pandas.DataFrame":
        """A row per method: the chosen strength, `at_edge`, and means of `Tuning.summary` over the seeds."""
        import pandas as pd

        rows = [
            {"method": name, "at_edge": tuning.at_edge, **tuning.summary()} for name, tuning in self.tunings.items()
        ]
        return pd.DataFrame(rows)

    def differences(self, baseline: str, figure: str = "test_error", level: float = 0.95) -> "pandas.DataFrame":
        """Paired differences of the final runs, method - baseline, seed by seed.

        Args:
            baseline: name of a method.
            figure: a column of the final rows, such as `"test_error"`.
            level: coverage of Student's interval of the mean difference.

        Returns:
            A row per other method: `method`, `mean`, `lower`, `upper`, `seeds`. The bounds are NaN for one seed.

        Raises:
            ValueError: for an unknown method or figure, or a level outside (0, 1).
        """
        import pandas as pd
        from scipy import stats

        one_of("baseline", baseline, self.tunings)
        one_of("figure", figure, _FIGURES)
        if not 0 < level < 1:
            msg = f"level must be a confidence between 0 and 1, got {level}"
            raise ValueError(msg)
        frame = self.to_frame()
        final = frame[frame["stage"] == FINAL].pivot_table(figure, index="seed", columns="method", dropna=False)
        paired = final[[name for name in self.tunings if name != baseline]].sub(final[baseline], axis=0)
        mean, half = paired.mean(), paired.sem() * stats.t.ppf((1 + level) / 2, max(len(paired) - 1, 1))
        found = pd.DataFrame({"mean": mean, "lower": mean - half, "upper": mean + half, "seeds": len(paired)})
        return found.reset_index()


def tune_methods(
    network: nn.Module | Callable[[int], nn.Module] | Any,
    data: LabelledData | Callable[[int], LabelledData] | Any,
    methods: Checked[Mapping[str, Mapping[str, Any]]],
    *,
    out: str | Path | None = None,
    **others: Any,
) -> TunedMethods:
    """`tune` per method: each regularizer at the strength that validation chooses for it.

    All methods share the training sets, the validation samples, the initial weights and the orders of each seed, so
    their differences are paired. Cost: the sum of the tunings' costs.

    Args:
        network: as in `tune`.
        data: as in `tune`; a function of the seed gives each seed its own training set.
        methods: name -> the arguments of `tune` that are the method's own: `setting` or `penalty`, `strengths`, and any
            argument of `train`. A method with neither `setting` nor `penalty` is trained without a strength, as the
            baseline `{"plain": {}}`; it too has validation figures.
        out: a folder with one folder per method, each as in `tune`.
        **others: all other arguments of `tune` and `train`, the same for all methods.

    Returns:
        The tunings, their rows in one table, and paired differences.

    Raises:
        ValueError: without a method, or for a method that gives what all methods share.
        ValueError: for arguments that `tune` refuses.

    Source: Sokolic et al. (2017), Tables 1 to 6 [S17], and Thumwanit (2020), Tables 2 to 5 [N20], compare methods so.

    >>> import torch
    >>> data = LabelledData(torch.eye(4).repeat(5, 1), torch.arange(4).repeat(5))
    >>> methods = {"plain": {}, "decay": {"setting": "weight_decay", "strengths": (0.01, 0.1)}}
    >>> tuned = tune_methods(nn.Linear(4, 4), data, methods, test=data, epochs=2, seeds=(0, 1))
    >>> tuned.differences("plain")["method"].tolist()
    ['decay']
    """
    if not methods:
        msg = "methods must hold at least one method, got none"
        raise ValueError(msg)
    for name, own in methods.items():
        if shared := [entry for entry in _SHARED if entry in own]:
            msg = f"method {name!r} must leave out what all methods share, got {', '.join(shared)}"
            raise ValueError(msg)
    given = cache(data) if callable(data) else data
    tunings = {}
    for name, own in methods.items():
        plain = {} if {"setting", "penalty"} & own.keys() else {"setting": unregularized, "strengths": (0.0,)}
        folder = None if out is None else Path(out) / file_stem(name)
        tunings[name] = tune(network, given, **{**others, **plain, **own}, out=folder)
    return TunedMethods(tunings)
