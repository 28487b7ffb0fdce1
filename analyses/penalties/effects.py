"""Each penalty lowers its own quantity: networks trained with and without it to one training loss, seed by seed.

Claim (ours): at matched training loss, the quantity that a penalty penalises is lower in the network that was trained
with it. Measured by the probe of that quantity where there is one (Jacobian norms, the layers' operator norms, error
under noise and under attack), else by the penalty's own exact form on the network in eval mode; on training samples,
where it is penalised, and on test samples, where misclassified ones dominate the quantities of the loss.

Both networks of a pair have the same initial weights and the same order of samples, and stop at the first epoch whose
training loss (eval mode, all training data) is at most the preset's target. Reported: the mean over the seeds of the
difference, with its 95 % interval by Student's t.

Acceptance: for every penalty and data set, the interval on training samples lies below 0. The strengths were chosen by
looking at single runs: large enough to show, small enough to reach the target loss.

    python -m analyses.penalties.effects --preset digits --workers 2

writes records/penalties/effects-digits.parquet: a row a network and quantity. Run time on two cores: digits 2 min,
mnist about 20 min.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from scipy import stats

import flatprobe as fp
from flatprobe.results import environment, write_table
from flatprobe.threads import thread_count
from flatprobe.training.parts import made
from flatprobe.training.penalties import PENALTIES

ROOT = Path(__file__).parents[2]
BATCH = 250  # samples at a time where a penalty's own form is measured; those that take a maximum take it over these

Quantity = Callable[[torch.nn.Module, fp.LabelledData], float]


def jacobian(**options: str) -> Quantity:
    """(1/n) sum_i ||J(x_i)||^2 by the probe."""
    return lambda model, data: float(fp.jacobian_norms(model, data, **options).values.square().mean())


def own(asked: Mapping[str, object]) -> Quantity:
    """The mean over batches of the penalty's exact form."""

    def measured(model: torch.nn.Module, data: fp.LabelledData) -> float:
        penalty = made("penalty", asked, PENALTIES)
        values = [
            float(penalty(fp.ForwardPass(model, batch.inputs, batch.labels, key=(0, index))).detach())
            for index, batch in enumerate(data.batches(BATCH))
        ]
        return sum(values) / len(values)

    return measured


def operator_norms(model: torch.nn.Module, data: fp.LabelledData) -> float:
    """The sum of the layers' squared operator norms, by the probe."""
    return float(fp.weight_norms(model, data.input_shape).of("spectral").square().sum())


def under_noise(gamma: float) -> Quantity:
    """The error under Gaussian noise."""
    return lambda model, data: float(fp.gaussian_robustness(model, data, gammas=[gamma], draws=5).error.mean())


def under_attack(budget: float) -> Quantity:
    """The error under PGD, l2."""
    return lambda model, data: 1 - float(fp.adversarial_accuracy(model, data, budgets=[budget]).accuracy.mean())


@dataclass(frozen=True)
class Case:
    """A penalty (or several), and the quantity that it is to lower."""

    penalties: tuple[tuple[float, Mapping[str, object]], ...]
    quantity: str
    measured: Quantity = field(repr=False)


FROBENIUS = {"name": "jacobian_frobenius"}
DOUBLE = {"name": "double_backpropagation"}
HESSIAN = {"name": "hessian_scaled"}
LAYERS = {"name": "jacobian_per_layer"}


def cases() -> dict[str, Case]:
    """All penalties, at strengths that change the quantity and let both data sets' networks reach the target."""
    softmax = {**FROBENIUS, "outputs": "softmax"}
    return {
        "Frobenius, logits": Case(
            ((0.0001, {**FROBENIUS, "projections": 1}),), "mean ||J||_F^2", jacobian(norm="frobenius")
        ),
        "Frobenius, softmax": Case(
            ((0.1, {**softmax, "projections": 1}),),
            "mean ||J||_F^2 of p",
            jacobian(norm="frobenius", outputs="softmax"),
        ),
        "spectral": Case(((0.001, {"name": "jacobian_spectral"}),), "mean ||J||_2^2", jacobian(norm="spectral")),
        "per layer, softmax, held": Case(((5.0, LAYERS),), "itself", own(LAYERS)),
        "per layer, logits, held": Case(
            ((0.001, {**LAYERS, "outputs": "logits"}),), "itself", own({**LAYERS, "outputs": "logits"})
        ),
        "double backpropagation": Case(((0.1, DOUBLE),), "mean ||grad l||^2", own(DOUBLE)),
        "Hessian-scaled": Case(((0.03, {**HESSIAN, "projections": 1}),), "mean Tr(J^T H J)", own(HESSIAN)),
        "hsfob-db1": Case(((0.03, {**HESSIAN, "projections": 1}), (0.03, DOUBLE)), "mean Tr(J^T H J)", own(HESSIAN)),
        "hsfob-db2": Case(
            ((0.003, {**HESSIAN, "projections": 2, "power": 2}), (0.003, DOUBLE)),
            "itself",
            own({**HESSIAN, "power": 2}),
        ),
        "gradient, l2": Case(
            ((1.0, {"name": "gradient_dual_norm", "norm": "l2"}),),
            "mean ||grad l||_2",
            own({"name": "gradient_dual_norm", "norm": "l2"}),
        ),
        "gradient, linf": Case(
            ((0.05, {"name": "gradient_dual_norm", "norm": "linf"}),),
            "mean ||grad l||_1",
            own({"name": "gradient_dual_norm", "norm": "linf"}),
        ),
        "Tikhonov by differences": Case(
            ((0.1, {"name": "tikhonov_differences", "step": 0.1}),), "mean ||grad l||^2", own(DOUBLE)
        ),
        "RKHS, gradient": Case(
            ((0.0001, {"name": "rkhs_gradient", "classes": 2}),), "itself", own({"name": "rkhs_gradient"})
        ),
        "RKHS, perturbation": Case(
            ((0.0001, {"name": "adversarial_perturbation", "radius": 0.5, "classes": 2}),),
            "itself",
            own({"name": "adversarial_perturbation", "radius": 0.5}),
        ),
        "RKHS, deformation": Case(
            ((0.003, {"name": "adversarial_deformation", "classes": 1}),),
            "itself",
            own({"name": "adversarial_deformation"}),
        ),
        "spectral norms": Case(((0.003, {"name": "spectral_norm"}),), "sum ||W_l||_2^2", operator_norms),
        "R_T, Gaussian noise": Case(
            ((1.0, {"name": "transformed", "transform": {"name": "gaussian_noise", "deviation": 0.3}}),),
            "error at noise 0.3",
            under_noise(0.3),
        ),
        "R_T, PGD": Case(
            ((1.0, {"name": "transformed", "transform": {"name": "pgd", "budget": 0.5, "norm": "l2"}}),),
            "error under l2 attack 0.5",
            under_attack(0.5),
        ),
    }


@dataclass(frozen=True)
class Preset:
    """What a preset runs on."""

    data: tuple[str, ...]
    train: int  # samples
    test: int  # samples
    target_loss: float  # nats
    seeds: int
    epochs: int  # the most that a training takes
    learning_rate: float = 0.05  # SGD with momentum 0.9
    batch_size: int = 64


PRESETS = {
    "quick": Preset(("digits",), 300, 200, 0.2, 2, 200),
    "digits": Preset(("digits",), 600, 290, 0.05, 5, 200),
    "mnist": Preset(("ylecun/mnist",), 600, 290, 0.05, 3, 40),
}


@dataclass(frozen=True)
class Cell:
    """All networks of one data set, case and seed."""

    preset: Preset
    data: str
    case: str | None  # None: without a penalty
    seed: int

    def rows(self) -> list[dict[str, object]]:
        """Train and measure: a row a quantity; the network without a penalty is measured by every case's quantity."""
        started = time.monotonic()
        preset, everything = self.preset, cases()
        data = fp.load_data(self.data, split="train", limit=preset.train)
        test = fp.load_data(self.data, split="test", limit=preset.test)
        run = fp.train(
            network(data, self.seed),
            data,
            epochs=preset.epochs,
            until="loss",
            target_loss=preset.target_loss,
            learning_rate=preset.learning_rate,
            batch_size=preset.batch_size,
            penalties=() if self.case is None else everything[self.case].penalties,
            seed=self.seed,
            on_failure="flag",
        )
        common = {
            "data": self.data,
            "penalised": self.case is not None,
            "seed": self.seed,
            "epochs": run.epochs,
            "met": run.reached,
            "train_loss": run.history[-1]["train_loss"],
            "test_accuracy": 1 - fp.EmpiricalRisk(run.model, test)().error,
        }
        own_case = everything if self.case is None else {self.case: everything[self.case]}
        found = [
            common | {"case": name, "quantity": case.quantity, "on": on, "value": case.measured(run.model, samples)}
            for name, case in own_case.items()
            for on, samples in (("training", data.head(len(test))), ("test", test))
        ]
        sys.stderr.write(f"{self.data}, {self.case}, seed {self.seed}: {time.monotonic() - started:.0f} s\n")
        return found


def network(data: fp.LabelledData, seed: int) -> torch.nn.Module:
    """An MLP for the digits, N20's small CNN for MNIST."""
    if data.input_shape == (1, 8, 8):
        return fp.models.mlp(data.input_shape, widths=(128,), seed=seed)
    return fp.models.thumwanit_cnn(data.input_shape, seed=seed)


def measure(preset: Preset, workers: int = 1) -> tuple[pd.DataFrame, dict[str, object]]:
    """All rows of a preset, and what was read. Results do not depend on the number of workers."""
    chosen = [
        Cell(preset, data, case, seed)
        for data in preset.data
        for case in (None, *cases())
        for seed in range(preset.seeds)
    ]
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        measured = list(pool.map(Cell.rows, chosen))
    subject = {name: fp.load_data(name, split="train", limit=preset.train).describe() for name in preset.data}
    return pd.DataFrame([row for part in measured for row in part]), subject


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means with and without the penalty, and the paired difference with its 95 % interval by Student's t."""
    keys = ["data", "on", "case", "quantity"]
    rows = []
    for names, group in frame.groupby(keys, sort=False):
        wide = group.pivot_table(index="seed", columns="penalised", values="value")
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


def accepted(frame: pd.DataFrame) -> dict[str, bool]:
    """The acceptance rule, part by part."""
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
    parser.add_argument("--workers", type=int, default=1, help="processes; one a core")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    out = options.out or ROOT / "records" / "penalties" / f"effects-{options.preset}.parquet"
    started = time.monotonic()
    with thread_count(1):
        frame, subject = measure(preset, options.workers)
    metadata = {
        "kind": "analysis",
        "command": f"python -m analyses.penalties.effects --preset {options.preset}",
        "settings": {"preset": asdict(preset), "penalties": {name: case.penalties for name, case in cases().items()}},
        "subject": subject,
        "environment": environment() | {"seconds": round(time.monotonic() - started, 1)},
    }
    write_table(frame, out, metadata)
    with pd.option_context("display.width", 250, "display.max_columns", None, "display.precision", 4):
        print(table(frame).to_string(index=False))
    for claim, holds in accepted(frame).items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    print(f"record: {out}")
    return out


if __name__ == "__main__":
    main(sys.argv[1:])
