"""The strength of a regularizer, chosen by validation."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.data import LabelledData, check_data
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.training.diverged import DivergedError
from flatprobe.training.loop import train
from flatprobe.training.penalties import PENALTIES
from flatprobe.training.registry import described, made
from flatprobe.training.run import TrainingRun
from flatprobe.training.tuning.grid import distinct, grid, varying, without_seed
from flatprobe.training.tuning.preflight import check_arguments, check_test, made_network
from flatprobe.training.tuning.result import FINAL, SEARCH, Row, Tuning, best_strength
from flatprobe.utils.arguments import Flag, Number, is_number, one_of
from flatprobe.utils.results import save, settings
from flatprobe.utils.rng import permutation
from flatprobe.utils.threads import thread_count

# From a usual weight decay to ten times S17's Jacobian factor of 1 (section VI-C), a factor of ten apart.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def tune(
    network: nn.Module | Callable[[int], nn.Module] | Any,
    data: LabelledData,
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

    V_s(lambda) is the loss (or error) on the validation split of seed s at the end of a training on the rest with
    strength lambda and seed s. Then one network a seed is trained with the chosen strength on all of the data,
    validation samples included, and measured on the test set. Until then the test set is not looked at. The cost:
    (strengths + 1) x seeds trainings.

    A training that diverges is a row with NaN and makes its strength the worst; one of the search that does not meet
    its stopping rule is a row with `reached` False, and counts as it is.

    Args:
        network: a classifier, whose initial weights are then those of every training, while the seed decides the split,
            the order and the noise; or a function seed -> classifier, which repeats over initial weights too.
        data: all training data.
        setting: what varies: `"weight_decay"`, `"learning_rate"` or `"momentum"`; or a function strength -> arguments
            of `train`, as in `lambda strength: {"objective": {"name": "smoothed_maximum", "epsilon": strength}}`.
        penalty: in place of a setting: `(strength, penalty)` is added to the `penalties` of `train`, except at strength
            0.
        strengths: the grid: at least two, finite, not negative; 0 is plain training. By default powers of ten from 1e-4
            to 10: S17 took 0.1 and 1 for its Jacobian penalty (section VI-C).
        validation: the fraction of the samples that each seed draws for validation, uniformly, without regard to the
            classes; 0.2 is five-fold cross-validation's. Or validation data of its own; then all of the data are
            trained on in the search too.
        test: where given, measured once for each final run, after everything else.
        seeds: one repetition each.
        criterion: `"loss"` of the objective, or `"error"`, the fraction that is wrong, where ties are frequent: the
            smallest of the best strengths is taken.
        out: a folder for a run folder of each training, and tuning.parquet. An interrupted tuning goes on where it
            stopped; one with more strengths or seeds uses the runs that are there.
        progress: True: a line on stderr after each training; None: on a terminal only.
        **others: all other arguments of `train`, the same in each training. `on_failure` is that of the final ones.

    Returns:
        The strength, the rows that it was chosen by, the final runs and what the test set says of them.

    Raises:
        RuntimeError: if there is no strength at which all seeds end with a finite loss.
        ValueError: for unsuitable arguments.

    Source: SPEC section 5; S17 chose its factors so (section VI-A1), N20 on the test set.

    >>> import torch
    >>> data = LabelledData(torch.eye(4).repeat(5, 1), torch.arange(4).repeat(5))
    >>> tuning = tune(nn.Linear(4, 4), data, setting="weight_decay", strengths=(0, 1), epochs=20, learning_rate=1.0)
    >>> tuning.strength, len(tuning.table), len(tuning.runs)
    (0.0, 6, 3)
    """
    fixed = without_seed(others)
    study = _Study(
        network=network,
        data=check_data(data),
        vary=varying(setting, penalty, fixed),
        validation=validation,
        others=fixed,
        out=None if out is None else Path(out),
    )
    ascending, repetitions = grid(strengths), distinct(seeds)
    one_of("criterion", criterion, ("loss", "error"))
    one_of("progress", progress, (True, False, None))
    check_arguments(study.vary, ascending, fixed)
    first = made_network(network, repetitions[0])
    if test is not None:
        check_test(first, data, check_data(test), fixed.get("objective", "cross_entropy"))
    tell = _telling((len(ascending) + 1) * len(repetitions), progress)
    rows = [row for seed in repetitions for row in study.searched(ascending, seed, tell)]
    best = best_strength(rows, criterion)
    runs = tuple(study.final(best, seed, tell) for seed in repetitions)
    rows += [study.final_row(run, best, seed, test) for run, seed in zip(runs, repetitions, strict=True)]
    subject = {
        "network": runs[0].settings["network"],
        "data": data.describe(),
        "validation": validation.describe() if isinstance(validation, LabelledData) else float(validation),
        "test": None if test is None else test.describe(),
    }
    arguments = {
        "setting": setting if setting is None or isinstance(setting, str) else _name(setting),
        "penalty": None if penalty is None else described(made("penalty", penalty, PENALTIES), PENALTIES),
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
    """What all trainings have in common."""

    network: object
    data: LabelledData
    vary: Callable[[float], dict[str, Any]]
    validation: Number | LabelledData
    others: dict[str, Any]
    out: Path | None

    def searched(self, grid: Sequence[float], seed: int, tell: Callable[[str], None]) -> list[Row]:
        """A row a strength: trained without the validation samples of this seed, and measured on them."""
        rest, held = split(self.data, self.validation, seed)
        flagged = {"validation": held, "on_failure": "flag"}
        rows = []
        for strength in grid:
            name = f"strength {strength:g}, seed {seed}"
            try:
                run = self._run(SEARCH, strength, seed, rest, **flagged)
            except DivergedError:
                rows.append(_row(SEARCH, strength, seed, {}, reached=False, diverged=True))
                tell(f"{name}: diverged")
                continue
            rows.append(_row(SEARCH, strength, seed, run.history[-1], reached=run.reached))
            tell(f"{name}: validation loss {rows[-1]['validation_loss']:.4g}, error {rows[-1]['validation_error']:.4g}")
        return rows

    def final(self, strength: float, seed: int, tell: Callable[[str], None]) -> TrainingRun:
        """Trained with the chosen strength on all of the data."""
        run = self._run(FINAL, strength, seed, self.data)
        tell(f"all data, strength {strength:g}, seed {seed}: training loss {run.history[-1]['train_loss']:.4g}")
        return run

    def final_row(self, run: TrainingRun, strength: float, seed: int, test: LabelledData | None) -> Row:
        """A final run and what the test set says of it: the only place where that is looked at."""
        row = _row(FINAL, strength, seed, run.history[-1], reached=run.reached)
        if test is None:
            return row
        with thread_count(run.settings["environment"]["threads"]):
            # As it was given: of a caller's own objective the record has only the description.
            objective = (self.others | self.vary(strength)).get("objective", "cross_entropy")
            risk = EmpiricalRisk(run.model, test, objective)()
        return row | {"test_loss": risk.loss, "test_error": risk.error}

    def _run(self, stage: str, strength: float, seed: int, data: LabelledData, **more: Any) -> TrainingRun:
        network = made_network(self.network, seed)
        out = None if self.out is None else self.out / stage / f"strength-{strength!r}" / f"seed-{seed}"
        return train(network, data, seed=seed, out=out, **self.others | self.vary(strength) | more)


def split(data: LabelledData, validation: Number | LabelledData, seed: int) -> tuple[LabelledData, LabelledData]:
    """What is trained on and what is validated on: round(fraction * n) samples drawn uniformly, a function of the seed.

    Raises:
        ValueError: if either part would be empty.
    """
    if isinstance(validation, LabelledData):
        return data, validation
    count = round(float(validation) * len(data)) if is_number(validation) and 0 < validation < 1 else 0
    if not 0 < count < len(data):
        msg = (
            f"validation is {validation!r} of {len(data)} samples; expected a fraction between 0 and 1 that leaves at "
            "least one sample on either side, or LabelledData"
        )
        raise ValueError(msg)
    order = permutation(len(data), seed, "validation")
    # In their old order: batches are shuffled anyway, and streams read faster.
    held, rest = order[:count].sort().values, order[count:].sort().values
    note = {"fraction": float(validation), "seed": seed}
    return data.subset(rest, without_validation=note), data.subset(held, validation=note)


def _row(stage: str, strength: float, seed: int, last: Row, *, reached: bool, diverged: bool = False) -> Row:
    """A row of the result from the last one of a history; what was not measured is NaN."""
    row: Row = {"stage": stage, "strength": strength, "seed": seed, "reached": reached, "diverged": diverged}
    for part in ("train", "validation"):
        row[f"{part}_loss"] = last.get(f"{part}_loss", math.nan)
        row[f"{part}_error"] = 1 - last.get(f"{part}_accuracy", math.nan)
    return row | {"test_loss": math.nan, "test_error": math.nan}


def _name(varied: object) -> str:
    return str(getattr(varied, "__qualname__", type(varied).__qualname__))


def _telling(total: int, progress: bool | None) -> Callable[[str], None]:
    """A function to call after each training with a line on it, for stderr."""
    started, done = time.monotonic(), 0

    def tell(line: str) -> None:
        nonlocal done
        done += 1
        if progress or (progress is None and sys.stderr.isatty()):
            sys.stderr.write(f"[{done}/{total}, {time.monotonic() - started:.0f} s] {line}\n")

    return tell
