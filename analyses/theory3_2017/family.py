"""Networks that Figs 5, 11, 12, 16, 17, 20 and Table 1 of Poggio et al. (2017) share: one sweep, many readers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

import flatprobe as fp
from analyses.reproduction import Outcome
from analyses.study import Study

LABELS = {"natural": 0.0, "random": 1.0}  # fraction of random labels
SCALES = (1, 10)  # factors of the initial weights; Fig. 17 names both, the other figures name none
INTERPOLATED = "interpolated"  # stage: the first epoch with 100 % training accuracy; the source names no stopping rule
EQUAL_LOSS = "equal loss"  # stage: our control, further training to one loss for natural and random labels


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks over labels, scales of the initial weights, data draws and seeds.

    Attributes:
        data: data set.
        samples: n, training samples.
        crop: pixels per side, None for whole images; the parameter counts of Table 2 imply 28 for CIFAR-10.
        widths: hidden units; one layer of 512 is Table 2's MLP. The figures name no network.
        draws: independent draws of samples and random labels: the repetitions of every interval.
        equal_loss: nats, by scale; below the loss of every network at its first 100 % epoch. None for no such stage.
        learning_rate: of SGD with momentum 0.9, constant; not stated.
        batch_size: samples; not stated.
        epochs: largest number per stage.
        pool: first training samples from which a draw is taken; None for all.
    """

    data: str
    samples: int
    crop: int | None = None
    widths: Sequence[int] = (512,)
    draws: int = 3
    equal_loss: Sequence[float] | None = None
    learning_rate: float = 0.03
    batch_size: int = 128
    epochs: int = 1000
    pool: int | None = 10000

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages of a training."""
        return (INTERPOLATED, EQUAL_LOSS) if self.equal_loss else (INTERPOLATED,)

    def networks(self, seeds: Sequence[tuple[int, int]] = ((0, 0),)) -> list[fp.Experiment]:
        """The experiments of all cells and draws.

        Args:
            seeds: of the initial weights and of the order, one pair per network of a cell and draw.
        """
        common = {"batch_size": self.batch_size, "epochs": self.epochs, "learning_rate": self.learning_rate}
        base = fp.Experiment(
            network={"name": "mlp", "widths": self.widths, "scale": 1},
            data={
                "name": self.data, "samples": self.samples, "pool": self.pool, "random_labels": 0.0,
                **({} if self.crop is None else {"crop": self.crop}),
            },
            stages=[
                {"name": INTERPOLATED, "until": "interpolation", **common},
                {"name": EQUAL_LOSS, "until": "loss", "target_loss": 0.0, **common},
            ][: len(self.stages)],
        )  # fmt: skip
        losses = ("stages.1.target_loss",) if self.equal_loss else ()
        return base.vary(
            {
                "data.random_labels": LABELS.values(),
                ("network.scale", *losses): list(zip(SCALES, *([self.equal_loss] if losses else []), strict=True)),
                "seeds.data": range(self.draws),
                ("seeds.network", "seeds.order"): seeds,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Both:
    """The networks on CIFAR-10, and the same on MNIST."""

    cifar: Family
    mnist: Family

    def sweep(self, study: Study, measurements: Sequence[fp.Measurement]) -> dict[str, pd.DataFrame]:
        """Rows by name of the measurement, with the columns of `cells` and the column `data`."""
        found: dict[str, list[pd.DataFrame]] = {m.name: [] for m in measurements}
        for name, part in vars(self).items():
            known = [m for m in measurements if m.stage in ("initial", *part.stages)]
            rows = study.sweep(part.networks(), known)
            for m in known:
                found[m.name].append(cells(rows[m.name]).assign(data=name, stage=m.stage))
        return {name: pd.concat(parts) for name, parts in found.items() if parts}


MNIST = {
    "quick": Family(
        data="digits",
        samples=30,
        widths=(32,),
        draws=1,
        batch_size=16,
        learning_rate=0.05,
        pool=None,
        equal_loss=(0.1, 0.05),
    ),
    "cpu": Family(data="ylecun/mnist", samples=1000, equal_loss=(0.03, 0.005)),
    "paper": Family(data="ylecun/mnist", samples=60000, epochs=3000, pool=None, equal_loss=(0.001, 0.001)),
}
CIFAR = {
    "quick": MNIST["quick"],
    "cpu": Family(data="uoft-cs/cifar10", samples=500, crop=28),
    "paper": Family(data="uoft-cs/cifar10", samples=50000, crop=28, epochs=3000, pool=None),
}
BOTH = {preset: Both(cifar=CIFAR[preset], mnist=MNIST[preset]) for preset in MNIST}
NAMES = {"cifar": "CIFAR-10", "mnist": "MNIST"}
JPEG = "CIFAR-10 here is re-encoded as JPEG."
CUT = (
    "Network, learning rate, stopping rule and scale of the initial weights are not stated. Here: Table 2's MLP of 512 "
    "units, SGD with momentum 0.9 to the first epoch with 100 % training accuracy, initial weights x1 and x10, 3 draws "
    "of 1,000 samples of MNIST and 500 of CIFAR-10, where natural labels are hard to learn from so few: the test "
    "accuracy is near 30 %. The quick preset takes the bundled digits for every data set."
)


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with short names of their cell: `labels`, `scale`, `draw`, `samples`."""
    named = {value: name for name, value in LABELS.items()}
    return rows.assign(
        labels=rows["data.random_labels"].map(named),
        scale=rows["network.scale"].astype(int),
        draw=rows["seeds.data"].astype(int),
        samples=rows["data.samples"].astype(int),
    )


LEARNED = 2000  # samples of CIFAR-10 below which this network hardly learns natural labels


def scaled_down(outcome: Outcome, frame: pd.DataFrame) -> Outcome:
    """An outcome that compares natural with random labels: untested where natural ones are hardly learned."""
    few = frame.loc[frame["data"] == "cifar", "samples"].between(100, LEARNED - 1).any()  # fewer: the quick preset
    return replace(outcome, holds=None) if few else outcome


def across(outcome: Outcome, frame: pd.DataFrame) -> Outcome:
    """An outcome that compares the data sets: untested, and beside the claim, unless both have as many samples."""
    return outcome if frame["samples"].nunique() == 1 else replace(outcome, holds=None, beside=True)


def pairs(frame: pd.DataFrame, value: str, **chosen: object) -> tuple[pd.Series, pd.Series]:
    """The values for natural and for random labels, one pair per draw, averaged over what else differs in a draw.

    Args:
        frame: a table with the columns `labels` and `draw`.
        value: the column.
        chosen: columns with the value to keep, such as `scale=10`.
    """
    for column, kept in chosen.items():
        frame = frame[frame[column] == kept]
    wide = frame.pivot_table(index="draw", columns="labels", values=value)
    return wide["natural"], wide["random"]
