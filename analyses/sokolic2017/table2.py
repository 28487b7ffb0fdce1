"""S17 Table II, MNIST: weight decay and the Jacobian penalty on few samples.

The paper leaves open, and is chosen here: pixels are in [0, 1], without normalization, and the grids of strengths. The
strength of a method is chosen at each n, on the first draw, by the accuracy on samples that no training set holds. The
penalty is sampled with one projection, whose value and gradient are unbiased, in place of ten backward passes.
"""

from dataclasses import dataclass

import pandas as pd

import flatprobe as fp
from analyses import rules
from analyses.reproduction import Outcome, Reproduction
from analyses.study import Study

LEARNING_RATE = 0.01  # divided by ten after each third of the epochs
BATCH_SIZE = 128  # samples
MOMENTUM = 0.9
PENALTY = {"name": "jacobian_frobenius", "outputs": "softmax", "projections": 1}  # eq. 49
METHODS = ("weight decay", "jacobian")
# Test accuracy in per cent, as printed: (weight decay, Jacobian regularizer) by n; the text says 96.3 for 96.03.
PUBLISHED = {1000: (94.00, 96.03), 5000: (97.59, 98.20), 20000: (98.60, 99.00), 50000: (99.10, 99.35)}
WITHIN = 0.5  # points; an accuracy that close counts as the printed one; our choice
SIZED = (2 / 3, 3 / 2)  # a lead within these factors of the printed one counts as its size; our choice


@dataclass(frozen=True)
class Preset:
    """Data, sizes and strengths of a preset."""

    data: str
    sizes: tuple[int, ...]  # n, training samples
    pool: int  # samples from which the training sets are drawn
    validation: int  # samples after the pool, on which strengths are chosen
    epochs: int  # S17: 120
    draws: int  # repetitions, of training set and initial weights; S17: 5
    strengths: dict[str, tuple[float, ...]]

    def experiment(self, n: int, method: str, strength: float, draw: int) -> fp.Experiment:
        """One training."""
        decay = method == "weight decay"
        regularizer = {"weight_decay": strength} if decay else {"penalties": [[strength, PENALTY]]}
        third = self.epochs // 3
        schedule = {"name": "step", "stages": [[1, third], [0.1, third], [0.01, third]]}
        common = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM, "batch_size": BATCH_SIZE}
        return fp.Experiment(
            network={"name": "sokolic_cnn"},
            data={"name": self.data, "samples": n, "pool": self.pool, "validation": self.validation},
            stages=[{"epochs": self.epochs, "schedule": schedule, **common, **regularizer}],
            seeds={"data": draw, "network": draw, "order": draw},
        )


GRID = {"weight decay": (1e-4, 1e-3, 1e-2, 1e-1), "jacobian": (0.1, 1.0, 10.0, 100.0)}
PRESETS = {
    "quick": Preset("digits", (64, 128), 1000, 300, 9, 2, {"weight decay": (1e-3,), "jacobian": (0.1, 1.0)}),
    "cpu": Preset("ylecun/mnist", (1000, 5000), 50000, 5000, 120, 3, GRID),
    "paper": Preset("ylecun/mnist", tuple(PUBLISHED), 50000, 5000, 120, 5, GRID),
}


def table(preset: Preset, study: Study) -> pd.DataFrame:
    """One row per training: the search for strengths, then the repetitions with the best."""
    grid = [(method, strength) for method in METHODS for strength in preset.strengths[method]]
    search = _rows(preset, study, "search", [(n, *entry, 0) for n in preset.sizes for entry in grid])
    best = choose_strengths(search)
    cells = [(n, method, best[n, method], draw) for draw in range(preset.draws) for n, method in best]
    return pd.concat([search, _rows(preset, study, "final", cells)], ignore_index=True)


def _rows(preset: Preset, study: Study, stage: str, cells: list[tuple[int, str, float, int]]) -> pd.DataFrame:
    experiments = [preset.experiment(*cell) for cell in cells]
    held_out = "validation" if stage == "search" else "test"
    found = study.sweep(experiments, [fp.Measurement("risk", on=on, name=on) for on in (held_out, "train")])
    keyed = {on: rows.set_index("experiment") for on, rows in found.items()}
    frame = pd.DataFrame(cells, columns=["n", "method", "strength", "draw"]).assign(stage=stage)
    keys = [experiment.key for experiment in experiments]
    for column, on in (("", held_out), ("train_", "train")):
        measured = keyed[on].loc[keys]
        frame[f"{column}accuracy"] = 100 * (1 - measured["error"].to_numpy())
        frame[f"{column}loss"] = measured["loss"].to_numpy()
    return frame


def choose_strengths(search: pd.DataFrame) -> dict[tuple[int, str], float]:
    """The best strength by n and method in validation, the smallest one in a tie."""
    ranked = search.sort_values(["accuracy", "strength"], ascending=[False, True])
    best = ranked.groupby(["n", "method"], sort=True)["strength"].first()
    return {(int(n), str(method)): float(strength) for (n, method), strength in best.items()}


def leads(frame: pd.DataFrame) -> pd.DataFrame:
    """Lead of the Jacobian penalty over weight decay in points, a row per draw and a column per n."""
    final = frame[frame["stage"] == "final"]
    wide = final.pivot_table(index=["draw", "n"], columns="method", values="accuracy")
    return (wide["jacobian"] - wide["weight decay"]).unstack("n")


def judge(frame: pd.DataFrame) -> list[Outcome]:
    """Ahead at every n, and most of all at the smallest; beside it the accuracies themselves."""
    found, printed = leads(frame), {n: jacobian - decay for n, (decay, jacobian) in PUBLISHED.items()}
    outcomes = [
        rules.difference(
            f"the Jacobian penalty leads at n = {n:,}",
            found[n],
            published=printed.get(n),
            band=(SIZED[0] * printed[n], SIZED[1] * printed[n]) if n in printed else None,
            unit="points",
        )
        for n in found
    ]
    small, large = min(found), max(found)
    if small < large:
        rule = f"the lead is larger at n = {small:,} than at {large:,}"
        fall = printed[small] - printed[large] if small in printed else None
        outcomes.append(rules.difference(rule, found[small] - found[large], published=fall, unit="points"))
    final = frame[frame["stage"] == "final"]
    for (n, method), cell in final.groupby(["n", "method"]):
        printed_value = PUBLISHED.get(n, (None, None))[METHODS.index(method)]
        if printed_value is not None:
            rule = f"accuracy within {WITHIN:g} points, {method}, n = {n:,}"
            bounds = (printed_value - WITHIN, printed_value + WITHIN)
            outcomes.append(
                rules.within(rule, cell["accuracy"], bounds, published=printed_value, unit="%", beside=True)
            )
    return outcomes


REPRODUCTION = Reproduction(
    id="S17-T2",
    source="Sokolic et al. (2017), Table II, MNIST",
    claim="The Jacobian regularizer gives a higher test accuracy than weight decay at every n, most of all at the "
    "smallest: 96.03 against 94.00 % at 1,000 samples, 98.20 against 97.59 % at 5,000.",
    published=[{"n": n, "weight decay": d, "jacobian": j} for n, (d, j) in PUBLISHED.items()],
    presets=PRESETS,
    table=table,
    rules=judge,
    differs="n = 1,000 and 5,000 of four sizes, three draws of five; network and training are S17's. Pixels are not "
    "normalized, and the penalty has one projection.",
    at_scale=("cpu", "paper"),
    cost="2 h",
)
