"""The strength of a regularizer, chosen by validation."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.data import LabelledData, check_data
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.training.diverged import DivergedError
from flatprobe.training.loop import train
from flatprobe.training.penalties import PENALTIES
from flatprobe.training.registry import build, describe
from flatprobe.training.run import TrainingRun
from flatprobe.training.tuning.grid import (
    build_network,
    check_arguments,
    check_test,
    data_by_seed,
    distinct,
    fixed,
    grid,
    unregularized,
    varying,
)
from flatprobe.training.tuning.result import FINAL, SEARCH, Row, Tuning, best_strength
from flatprobe.utils.arguments import Flag, Number, is_number, one_of
from flatprobe.utils.progress import Report, reporting
from flatprobe.utils.results import save, settings
from flatprobe.utils.rng import permutation
from flatprobe.utils.threads import thread_count

# From a usual weight decay to ten times S17's Jacobian factor of 1 (section VI-C), a factor of ten apart.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def tune(
    network: nn.Module | Callable[[int], nn.Module] | Any,
    data: LabelledData | Callable[[int], LabelledData] | Any,
    *,
    setting: str | Callable[[float], Mapping[str, Any]] | Any | None = None,
    penalty: object = None,
    strengths: Iterable[float] | Any = STRENGTHS,
    validation: Number | LabelledData = 0.2,
    test: LabelledData | None = None,
    seeds: Iterable[int] | Any = (0, 1, 2),
    criterion: str = "loss",
    out: str | Path | None = None,
    progress: Flag | None = False,
    **others: Any,
) -> Tuning:
    """argmin over lambda of (1/S) sum_s V_s(lambda), then training with it on all data.

    V_s(lambda) is the loss (or error) on the validation split of seed s, after training on the rest with strength
    lambda and seed s. Then one network per seed is trained with the chosen strength on all data, validation samples
    included, and measured on the test set. Nothing reads the test set before. The cost: (strengths + 1) x seeds
    trainings.

    A training that diverges is a row of NaN and makes its strength the worst. A training of the search that misses its
    stopping rule is a row with `reached` False, and counts as it is.

    Args:
        network: a classifier, whose weights all trainings start from, while the seed decides the split, the order and
            the noise; or a function seed -> classifier, which repeats over initial weights too.
        data: all training data; or a function seed -> training data, called once per seed, which repeats over training
            sets too, as in `lambda seed: pool.balanced(50, seed)`.
        setting: the name `"weight_decay"`, `"learning_rate"` or `"momentum"`; or a function strength -> arguments of
            `train`, as in `lambda strength: {"objective": {"name": "smoothed_maximum", "epsilon": strength}}`.
        penalty: in place of a setting: `(strength, penalty)` is added to the `penalties` of `train`, except at strength
            0.
        strengths: the grid: at least two, finite, not negative; 0 is plain training. Default: powers of ten from 1e-4
            to 10; S17 took 0.1 and 1 for its Jacobian penalty (section VI-C).
        validation: the fraction of the samples that each seed draws for validation, uniformly, without regard to the
            classes; 0.2 is five-fold cross-validation's. Or validation data: then the search trains on all of `data`.
        test: measured once for each final run, after everything else.
        seeds: one per repetition.
        criterion: `"loss"` of the objective; or `"error"`, the misclassified fraction, where ties are frequent: the
            smallest of the best strengths is taken.
        out: a folder for the run folders, and tuning.parquet. An interrupted tuning continues there; one with more
            strengths or seeds reuses the runs.
        progress: True: a line on stderr after each training; None: on a terminal only.
        **others: all other arguments of `train`, the same in each training. `on_failure` is for the final ones.

    Returns:
        The strength, the rows of the search, the final runs and their test figures.

    Raises:
        RuntimeError: if no strength ends with a finite loss for all seeds.
        ValueError: for unsuitable arguments.

    Source: Sokolic et al. (2017), section VI-A1 [S17], chose factors so; Thumwanit (2020) chose on the test set [N20].

    >>> import torch
    >>> data = LabelledData(torch.eye(4).repeat(5, 1), torch.arange(4).repeat(5))
    >>> tuning = tune(nn.Linear(4, 4), data, setting="weight_decay", strengths=(0, 1), epochs=20, learning_rate=1.0)
    >>> tuning.strength, len(tuning.table), len(tuning.runs)
    (0.0, 6, 3)
    """
    constant = fixed(others)
    study = _Study(
        network=network,
        data=data_by_seed(data),
        vary=varying(setting, penalty, constant),
        validation=validation,
        constant=constant,
        out=None if out is None else Path(out),
    )
    ascending, repetitions = grid(strengths, fewest=1 if setting is unregularized else 2), distinct(seeds)
    one_of("criterion", criterion, ("loss", "error"))
    one_of("progress", progress, (True, False, None))
    check_arguments(study.vary, ascending, constant)
    first = build_network(network, repetitions[0])
    if test is not None:
        check_test(first, study.data(repetitions[0]), check_data(test), constant.get("objective", "cross_entropy"))
    with reporting((len(ascending) + 1) * len(repetitions), progress, bar=False) as report:
        rows = [row for seed in repetitions for row in study.search(ascending, seed, report)]
        best = best_strength(rows, criterion)
        runs = tuple(study.final(best, seed, report) for seed in repetitions)
    for run, seed in zip(runs, repetitions, strict=True):
        rows.append(_row(FINAL, best, seed, run.history[-1], reached=run.reached) | study.measure(run, best, test))
    subject = {
        "network": runs[0].settings["network"],
        "data": {str(seed): study.data(seed).describe() for seed in repetitions} if callable(data) else data.describe(),
        "validation": validation.describe() if isinstance(validation, LabelledData) else float(validation),
        "test": None if test is None else test.describe(),
    }
    varied = setting if setting is None or isinstance(setting, str) else _name(setting)
    arguments = {
        "setting": varied,
        "penalty": None if penalty is None else describe(build("penalty", penalty, PENALTIES), PENALTIES),
        "strengths": ascending,
        "seeds": repetitions,
        "criterion": criterion,
        "training": runs[0].settings["settings"],
    }
    tuning = Tuning(rows=rows, runs=runs, settings=settings("tune", subject, **arguments))
    if study.out is not None:
        save(tuning, study.out / "tuning.parquet")
    return tuning


@dataclass(frozen=True, kw_only=True)
class _Study:
    """The arguments that all trainings share."""

    network: object
    data: Callable[[int], LabelledData]
    vary: Callable[[float], dict[str, Any]]
    validation: Number | LabelledData
    constant: dict[str, Any]
    out: Path | None

    def search(self, strengths: Sequence[float], seed: int, report: Report) -> Iterator[Row]:
        """A row per strength: trained without the validation samples of this seed, and measured on them."""
        rest, held = split(self.data(seed), self.validation, seed)
        for strength in strengths:
            try:
                run = self._train(SEARCH, strength, seed, rest, validation=held, on_failure="flag")
                row = _row(SEARCH, strength, seed, run.history[-1], reached=run.reached)
                text = f"validation loss {row['validation_loss']:.4g}, error {row['validation_error']:.4g}"
            except DivergedError:
                row, text = _row(SEARCH, strength, seed, {}, reached=False, diverged=True), "diverged"
            report(f"strength {strength:g}, seed {seed}: {text}")
            yield row

    def final(self, strength: float, seed: int, report: Report) -> TrainingRun:
        """A run with the chosen strength on all of the data."""
        run = self._train(FINAL, strength, seed, self.data(seed))
        report(f"all data, strength {strength:g}, seed {seed}: training loss {run.history[-1]['train_loss']:.4g}")
        return run

    def measure(self, run: TrainingRun, strength: float, test: LabelledData | None) -> Row:
        """Loss and error on the test set, which nothing else reads."""
        if test is None:
            return {}
        with thread_count(run.settings["environment"]["threads"]):
            # The record only describes a user-defined objective, so the arguments have to give it.
            objective = (self.constant | self.vary(strength)).get("objective", "cross_entropy")
            risk = EmpiricalRisk(run.model, test, objective)()
        return {"test_loss": risk.loss, "test_error": risk.error}

    def _train(self, stage: str, strength: float, seed: int, data: LabelledData, **more: Any) -> TrainingRun:
        out = None if self.out is None else self.out / stage / f"strength-{strength!r}" / f"seed-{seed}"
        arguments = self.constant | self.vary(strength) | more
        return train(build_network(self.network, seed), data, seed=seed, out=out, **arguments)


def split(data: LabelledData, validation: Number | LabelledData, seed: int) -> tuple[LabelledData, LabelledData]:
    """The samples to train on, and round(fraction * n) validation samples that the seed draws uniformly.

    Raises:
        ValueError: for a fraction that leaves either part empty.
    """
    if isinstance(validation, LabelledData):
        return data, validation
    count = round(float(validation) * len(data)) if is_number(validation) and 0 < validation < 1 else 0
    if not 0 < count < len(data):
        msg = (
            "validation must be LabelledData, or a fraction between 0 and 1 that leaves at least one sample on either "
            f"side, got {validation!r} of {len(data)} samples"
        )
        raise ValueError(msg)
    order = permutation(len(data), seed, "validation")
    # The data's order is kept: batches are shuffled anyway, and streams read faster.
    held, rest = order[:count].sort().values, order[count:].sort().values
    note = {"fraction": float(validation), "seed": seed}
    return data.subset(rest, without_validation=note), data.subset(held, validation=note)


def _row(stage: str, strength: float, seed: int, last: Row, *, reached: bool, diverged: bool = False) -> Row:
    """A row of the result from the last row of a history, NaN where nothing was measured."""
    row: Row = {"stage": stage, "strength": strength, "seed": seed, "reached": reached, "diverged": diverged}
    for part in ("train", "validation"):
        row[f"{part}_loss"] = last.get(f"{part}_loss", math.nan)
        row[f"{part}_error"] = 1 - last.get(f"{part}_accuracy", math.nan)
    return row | {"test_loss": math.nan, "test_error": math.nan}


def _name(varied: object) -> str:
    return str(getattr(varied, "__qualname__", type(varied).__qualname__))
