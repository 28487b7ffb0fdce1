"""Effect of each penalty on its quantity at equal training loss.

Claim (ours): at equal training loss, the quantity of a penalty is lower in the network that was trained with it. The
quantity is measured by its probe where there is one (Jacobian norms, operator norms of the layers, error under noise
and under attack), else by the exact form of the penalty on the network in eval mode. It is measured on training
samples, where it is penalized, and on test samples, where misclassified and uncertain samples dominate loss and
softmax.

Both networks of a pair have the same initial weights and the same order of samples. Training stops at the first epoch
whose training loss (eval mode, all training data) is at most the target of the preset. Reported: the mean difference
over the seeds, with its 95 % interval by Student's t.

Acceptance: for every penalty and data set, the interval on training samples is below 0. The strengths were chosen from
single runs: large enough for an effect, small enough to reach the target loss.

    python -m analyses.penalties.effects --preset digits --workers 2

writes records/penalties/effects-digits.parquet: a row per network and quantity. Run time on two cores:
digits 6 min, mnist 8 min.
"""

import argparse
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from scipy import stats

import flatprobe as fp
from analyses.penalties.cases import Case, cases
from analyses.running import pool, write_record
from flatprobe.training.diverged import DivergedError
from flatprobe.utils.results import environment
from flatprobe.utils.threads import thread_count

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Preset:
    """Data and training of a preset."""

    data: tuple[str, ...]
    train: int  # samples
    test: int  # samples
    target_loss: float  # nats
    seeds: int
    epochs: int  # largest number per training
    learning_rate: float = 0.02  # SGD with momentum 0.9; slow, so that networks stop close to the target
    batch_size: int = 64
    noise: float = 0.3  # standard deviation of the case with noise; for MNIST that of the digits is too small
    factors: tuple[tuple[str, float], ...] = ()  # of the strengths of `cases`, which were chosen for the digits

    def cases(self) -> dict[str, Case]:
        """All cases at the strengths of this preset."""
        return cases(dict(self.factors), self.noise)


# Ten times the strengths of the digits, unless that prevents training: R_T above 1, for example, rewards a high loss.
MNIST_FACTORS = dict.fromkeys(cases(), 10.0) | dict.fromkeys(
    ("gradient, l2", "gradient, linf", "RKHS, deformation", "R_T, Gaussian noise", "R_T, PGD"), 1.0
)
PRESETS = {
    "quick": Preset(("digits",), 300, 200, 0.2, 2, 200),
    "digits": Preset(("digits",), 600, 290, 0.05, 5, 400),
    "mnist": Preset(("ylecun/mnist",), 600, 290, 0.05, 5, 400, noise=0.8, factors=tuple(MNIST_FACTORS.items())),
}


@dataclass(frozen=True)
class Cell:
    """All networks of one data set, case and seed."""

    preset: Preset
    data: str
    case: str | None  # None: without a penalty
    seed: int

    def rows(self) -> list[dict[str, object]]:
        """Train and measure; the network without a penalty has all quantities."""
        started = time.monotonic()
        preset, everything = self.preset, self.preset.cases()
        data = fp.load_data(self.data, split="train", limit=preset.train)
        test = fp.load_data(self.data, split="test", limit=preset.test)
        run = self._train(data, () if self.case is None else everything[self.case].penalties)
        common = {
            "data": self.data,
            "penalised": self.case is not None,
            "seed": self.seed,
            "epochs": 0 if run is None else run.epochs,
            "met": run is not None and run.reached,
            "train_loss": math.nan if run is None else run.history[-1]["train_loss"],
            "test_accuracy": math.nan if run is None else 1 - fp.EmpiricalRisk(run.model, test)().error,
        }
        own_case = everything if self.case is None else {self.case: everything[self.case]}
        found = []
        for name, case in own_case.items():
            for on, samples in (("training", data.head(len(test))), ("test", test)):
                value = math.nan if run is None else case.measured(run.model, samples)
                found.append(common | {"case": name, "quantity": case.quantity, "on": on, "value": value})
        sys.stderr.write(f"{self.data}, {self.case}, seed {self.seed}: {time.monotonic() - started:.0f} s\n")
        return found

    def _train(self, data: fp.LabelledData, penalties: object) -> fp.TrainingRun | None:
        """The run, or None if it diverged, which is a result too."""
        preset = self.preset
        try:
            return fp.train(
                network(data, self.seed),
                data,
                epochs=preset.epochs,
                until="loss",
                target_loss=preset.target_loss,
                learning_rate=preset.learning_rate,
                batch_size=preset.batch_size,
                penalties=penalties,
                seed=self.seed,
                on_failure="flag",
            )
        except DivergedError as error:
            sys.stderr.write(f"{self.data}, {self.case}, seed {self.seed}: {error}\n")
            return None


def network(data: fp.LabelledData, seed: int) -> torch.nn.Module:
    """An MLP with one hidden layer: 128 units for the digits, T3's 512 for MNIST."""
    return fp.models.mlp(data.input_shape, widths=(128 if data.input_shape == (1, 8, 8) else 512,), seed=seed)


def measure(preset: Preset, workers: int = 1) -> tuple[pd.DataFrame, dict[str, object]]:
    """Rows of a preset, and its data, with any number of workers."""
    chosen = [
        Cell(preset, data, case, seed)
        for data in preset.data
        for case in (None, *cases())
        for seed in range(preset.seeds)
    ]
    with pool(workers) as workplace:
        measured = list(workplace.map(Cell.rows, chosen))
    subject = {name: fp.load_data(name, split="train", limit=preset.train).describe() for name in preset.data}
    return pd.DataFrame([row for part in measured for row in part]), subject


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means with and without the penalty, and the difference with its 95 % interval."""
    keys = ["data", "on", "case", "quantity"]
    rows = []
    for names, group in frame.groupby(keys, sort=False):
        wide = group.pivot_table(index="seed", columns="penalised", values="value", dropna=False)
        difference = (wide[True] - wide[False]).dropna()
        half = stats.t.ppf(0.975, len(difference) - 1) * difference.std() / len(difference) ** 0.5
        losses = group.groupby("penalised")["train_loss"].mean()
        accuracies = group.groupby("penalised")["test_accuracy"].mean()
        rows.append(
            dict(zip(keys, names, strict=True))
            | {
                "plain": wide[False].mean(),
                "penalised": wide[True].mean(),
                "low": difference.mean() - half,
                "high": difference.mean() + half,
                "seeds": len(difference),
                "plain_loss": losses[False],
                "penalised_loss": losses[True],
                "plain_accuracy": accuracies[False],
                "penalised_accuracy": accuracies[True],
                "met": bool(group["met"].all()),
            }
        )
    return pd.DataFrame(rows)


def check_claims(frame: pd.DataFrame) -> dict[str, bool]:
    """Parts of the acceptance rule, and whether they hold."""
    return {
        f"{row.data}: {row.case} lowers {row.quantity} on training samples": bool(row.met and row.high < 0)
        for row in table(frame).itertuples()
        if row.on == "training"
    }


def main(arguments: list[str] | None = None) -> Path:
    """Measure a preset, write its record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--out", type=Path, help="record to write; by default records/penalties/effects-PRESET.parquet")
    parser.add_argument("--workers", type=int, default=1, help="processes; one per core")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    out = options.out or ROOT / "records" / "penalties" / f"effects-{options.preset}.parquet"
    started = time.monotonic()
    with thread_count(1):
        frame, subject = measure(preset, options.workers)
    metadata = {
        "kind": "analysis",
        "command": f"python -m analyses.penalties.effects --preset {options.preset}",
        "settings": {
            "preset": asdict(preset),
            "penalties": {name: case.penalties for name, case in preset.cases().items()},
        },
        "subject": subject,
        "environment": environment() | {"seconds": round(time.monotonic() - started, 1)},
    }
    return write_record(frame, out, metadata, shown=(table(frame),), claims=check_claims(frame))


if __name__ == "__main__":
    main(sys.argv[1:])
