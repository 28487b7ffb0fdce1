"""All-convolutional networks on CIFAR-10, shared by Figs 1-4, 6, 13-15 and 21-24 of Poggio et al. (2017)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from torch import nn

import flatprobe as fp
from analyses.study import Study
from flatprobe.studies.sweep import rows

LABELS = {"natural": 0.0, "random": 1.0}  # fraction of random labels
HE = 6**0.5  # factor from torch's default initial weights to those of He et al. (2015); not stated
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # of CIFAR-10's channels; not stated
INTERVAL = 10.0  # ReLU is fitted on [-10, 10], in standard deviations of the BatchNorm; not stated
CHANCE = 0.9  # error of a guess among 10 classes
FITTED = 0.01  # training error that counts as zero: at most 5 of 500 samples
JPEG = "CIFAR-10 here is re-encoded as JPEG."
OPEN = (
    "Kernel, strides, crop, initial weights, learning rate, batch size, epochs and repetitions are not stated. Here: "
    "five 3x3 convolutions of stride 2 and a linear layer on whole normalized images, He's initial weights, SGD with "
    "momentum 0.9 and a cosine schedule."
)


QUICK = {"data": "digits", "pool": 1000, "validation": 100, "batch_size": 10, "learning_rate": 0.05}
QUICK_NETWORK = {"name": "all_convolutional", "scale": HE}  # the digits are grey


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks over numbers of samples, widths, labels and seeds.

    Attributes:
        epochs: by n, the number of training samples; not stated but for Fig. 15.
        once: further pairs of n and epochs, with the first seed alone.
        channels: k, filters per layer; 16 in Figs 1 and 2.
        labels: of `LABELS`.
        seeds: of the draw of samples and random labels, the initial weights and the order, together.
        data: data set.
        pool: first training samples, from which n are drawn; None for all.
        validation: samples after the pool, for the curves over epochs; None for the test set.
        batch_size: samples; not stated.
        learning_rate: at the start; not stated.
        network: name of the builder and its further arguments.
        training: further arguments of `fp.train`.
    """

    epochs: Mapping[int, int]
    once: Sequence[tuple[int, int]] = ()
    channels: Sequence[int] = (16,)
    labels: Sequence[str] = ("natural",)
    seeds: Sequence[int] = (0, 1, 2)
    data: str = "uoft-cs/cifar10"
    pool: int | None = 20000
    validation: int | None = 500
    batch_size: int = 64
    learning_rate: float = 0.02
    network: Mapping[str, Any] = field(
        default_factory=lambda: {"name": "all_convolutional", "scale": HE, "mean": MEAN, "std": STD}
    )
    training: Mapping[str, Any] = field(default_factory=dict)

    def experiments(self) -> Iterator[fp.Experiment]:
        """One experiment per seed, n, width and labels."""
        base = fp.Experiment(
            network={"channels": 16, **self.network},
            data={
                "name": self.data, "samples": 1, "pool": self.pool, "validation": self.validation, "random_labels": 0.0,
            },
            stages=[
                {
                    "epochs": 1, "learning_rate": self.learning_rate, "batch_size": self.batch_size,
                    "schedule": "cosine", "validation": "validation" if self.validation else "test", **self.training,
                }
            ],
        )  # fmt: skip
        for epochs, seeds in ((tuple(self.epochs.items()), self.seeds), (self.once, self.seeds[:1])):
            yield from base.vary(
                {
                    ("seeds.data", "seeds.network", "seeds.order"): [(seed,) * 3 for seed in seeds],
                    ("data.samples", "stages.0.epochs"): epochs,
                    "network.channels": self.channels,
                    "data.random_labels": [LABELS[name] for name in self.labels],
                }
            )


def batch_normalized(input_shape: Sequence[int], *, classes: int, seed: int, **arguments: Any) -> nn.Sequential:
    """The all-convolutional network with BatchNorm behind each convolution, which bounds the polynomial's inputs."""
    plain, network = fp.models.all_convolutional(input_shape, classes=classes, seed=seed, **arguments), nn.Sequential()
    for name, layer in plain.named_children():
        network.add_module(name, layer)
        if isinstance(layer, nn.Conv2d):
            network.add_module(name.replace("conv", "norm"), nn.BatchNorm2d(layer.out_channels))
    return network


def polynomial(family: Family, activation: str = "polynomial") -> Family:
    """The same networks with BatchNorm and another activation, at half the learning rate."""
    chosen = {"activation": activation, **({"interval": INTERVAL} if activation == "polynomial" else {})}
    changes = {name: family.network[name] for name in ("mean", "std") if name in family.network}
    network = {"name": f"{__name__}:{batch_normalized.__name__}", **chosen, **changes}
    return replace(family, network=network, learning_rate=family.learning_rate / 2)


def count_weights(model: nn.Module, _data: fp.LabelledData) -> dict[str, int]:
    """W, the number of trained parameters."""
    return {"weights": sum(parameter.numel() for parameter in model.parameters())}


MEASURED = (
    fp.Measurement("risk", name="train"),
    fp.Measurement("risk", on="test", name="test"),
    fp.Measurement(count_weights, name="size"),
)
CURVES = fp.Measurement("history")


def errors(study: Study, *families: Family) -> pd.DataFrame:
    """One row per network: n, k, labels, activation, seed, weights, errors, and their gap; NaN if it diverged.

    Raises:
        RuntimeError: if a unit failed for another reason.
    """
    table = _sweep(study, families, MEASURED)
    train, test, size = (table[table["measurement"] == m.name].set_index("experiment") for m in MEASURED)
    found = named(train.reset_index()).set_index("experiment")
    found["weights"] = size["weights"]
    for name, part in (("train", train), ("test", test)):
        found[f"{name}_error"], found[f"{name}_loss"] = part["error"], part["loss"]
    found["gap"] = found["test_error"] - found["train_error"]
    return found.reset_index()


def histories(study: Study, *families: Family) -> pd.DataFrame:
    """One row per network and epoch: the columns of `errors`, and loss and errors on both sets after the epoch."""
    final = errors(study, *families)
    found = rows(_sweep(study, families, (CURVES,)), CURVES.name or "")
    by_epoch = pd.DataFrame(
        {
            "experiment": found["experiment"],
            "epoch": found["epoch"].astype(int),
            "loss_by_epoch": found["train_loss"],
            "train_by_epoch": 1 - found["train_accuracy"],
            "validation_by_epoch": 1 - found["validation_accuracy"],
        }
    )
    return final.merge(by_epoch, on="experiment").drop(columns="experiment")


def _sweep(study: Study, families: Iterable[Family], measurements: Sequence[fp.Measurement]) -> pd.DataFrame:
    """The table of `fp.sweep`, where trainings that diverged are rows without a figure.

    Raises:
        RuntimeError: if a unit failed for another reason.
    """
    experiments = [experiment for family in families for experiment in family.experiments()]
    try:
        study.sweep(experiments, measurements)
    except RuntimeError:
        table = study.units[-1]
        if not table.loc[table["state"] == "failed", "failure"].str.contains("finite").all():
            raise
    return study.units[-1]


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Short names of an experiment's settings; `noise` is that of SGDL."""
    names = {value: name for name, value in LABELS.items()}
    optional = table.reindex(columns=["network.activation", "stages.0.optimizer.noise"]).astype(object)
    return pd.DataFrame(
        {
            "experiment": table["experiment"],
            "n": table["data.samples"].astype(int),
            "k": table["network.channels"].astype(int),
            "epochs": table["stages.0.epochs"].astype(int),
            "labels": table["data.random_labels"].map(names),
            "batch_norm": table["network.name"].str.contains(batch_normalized.__name__),
            "activation": optional["network.activation"].fillna("relu").astype(str),
            "noise": optional["stages.0.optimizer.noise"].fillna(0.0).astype(float),
            "seed": table["seeds.data"].astype(int),
        }
    )


def usual(frame: pd.DataFrame) -> pd.DataFrame:
    """The networks without those that were trained for more epochs than others of their n."""
    return frame[frame["epochs"] == frame.groupby("n")["epochs"].transform("min")]


def per_seed(frame: pd.DataFrame, value: str, **cell: object) -> pd.Series:
    """The values of a cell by seed; those of networks that diverged are left out."""
    for column, kept in cell.items():
        frame = frame[frame[column] == kept]
    return frame.set_index("seed")[value].dropna().sort_index()
