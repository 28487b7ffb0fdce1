"""Generalization itself: loss and accuracy on the training and on the test samples, and their gaps."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.network.contexts import standalone
from flatprobe.network.trained_on import trained_on
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.risk.samples import per_sample
from flatprobe.utils.confidence import mean_interval, wilson
from flatprobe.utils.results import Result, settings

TRAIN, TEST = "train", "test"


@dataclass(frozen=True, kw_only=True, repr=False)
class Generalization(Result):
    """Loss and correctness per sample, by split. The table has one row per sample, the training samples first.

    Attributes:
        split: (samples,) "train" or "test".
        losses: (samples,) loss.
        correct: (samples,) 1 where the class is right, 0 where it is wrong, 1 - error for a loss with an error of its
            own, NaN where the task has no error.
    """

    split: tuple[str, ...]
    losses: Float64[Tensor, " samples"]
    correct: Float64[Tensor, " samples"]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.losses)

    def of(self, split: str) -> tuple[Float64[Tensor, " split"], Float64[Tensor, " split"]]:
        """Losses and correctness of the samples of one split; empty where it was not measured."""
        chosen = torch.tensor([own == split for own in self.split], dtype=torch.bool, device="cpu")
        return self.losses[chosen], self.correct[chosen]

    def summary(self) -> dict[str, float]:
        """Accuracy and loss by split, test before train where both were measured, and the gaps.

        `loss_gap` is test loss - training loss, `accuracy_gap` is training accuracy - test accuracy: a positive gap
        means that the network is worse on the test samples.
        """
        figures: dict[str, float] = {}
        for split in (TEST, TRAIN):
            losses, correct = self.of(split)
            if len(losses):
                accuracy = {f"{split}_accuracy": float(correct.mean())} if not bool(correct.isnan().any()) else {}
                figures |= accuracy | {f"{split}_loss": float(losses.mean())}
        for kind, sign in (("accuracy", -1.0), ("loss", 1.0)):
            pair = [f"{split}_{kind}" for split in (TEST, TRAIN)]
            if figures.keys() >= {*pair}:
                figures[f"{kind}_gap"] = sign * (figures[pair[0]] - figures[pair[1]])
        return figures

    def interval(self, figure: str, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of a figure of `summary` for fresh samples of the same distributions.

        Wilson's for an accuracy, and Student's for a mean loss or error. Those of the two splits give that of a gap:
        each end is as far from the gap as the root of the sum of squares of the two ends' distances (Newcombe 1998,
        "Interval estimation for the difference between independent proportions", method 10). The interval of a training
        figure holds for fresh samples only if the network has not seen the measured ones.

        Args:
            figure: name of the figure.
            level: confidence; 0.95 by convention.

        Returns:
            Lower and upper end; NaN for a loss over fewer than two samples.

        Raises:
            ValueError: for a figure that the summary does not have.
        """
        figures = self.summary()
        if figure not in figures:
            msg = f"figure must be one of {', '.join(figures)}, got {figure!r}. Measure with test data for a gap"
            raise ValueError(msg)
        if figure.endswith("_gap"):
            kind = figure.removesuffix("_gap")
            pair = [f"{TEST}_{kind}", f"{TRAIN}_{kind}"] if kind == "loss" else [f"{TRAIN}_{kind}", f"{TEST}_{kind}"]
            (low, high), (low_off, high_off) = (self.interval(name, level) for name in pair)
            p, q = (figures[name] for name in pair)
            return p - q - math.hypot(p - low, high_off - q), p - q + math.hypot(high - p, q - low_off)
        split, _, kind = figure.partition("_")
        losses, correct = self.of(split)
        if kind == "loss":
            return mean_interval(losses, level)
        if not bool(((correct == 0) | (correct == 1)).all()):  # an error of parts of a sample
            return mean_interval(correct, level)
        lower, upper = wilson(correct.mean()[None], len(correct), level)
        return float(lower), float(upper)

    @property
    def test_loss(self) -> float:
        """Mean loss of the test samples; NaN where none were measured."""
        return self.summary().get("test_loss", math.nan)

    @property
    def train_loss(self) -> float:
        """Mean loss of the training samples."""
        return self.summary()["train_loss"]

    @property
    def test_accuracy(self) -> float:
        """Accuracy on the test samples; NaN where none were measured."""
        return self.summary().get("test_accuracy", math.nan)

    @property
    def train_accuracy(self) -> float:
        """Accuracy on the training samples; NaN where the task has no classes."""
        return self.summary().get("train_accuracy", math.nan)


@standalone
def generalization(
    model: nn.Module,
    data: LabelledData,
    test: LabelledData | None = None,
    *,
    loss: Any = "cross_entropy",
    batch_size: int | None = None,
) -> Generalization:
    """I_test(w) - I_train(w) and the same for the accuracy: mean loss and accuracy by split, sample by sample.

    Cost: 1 forward pass over each split.

    Args:
        model: a network in eval mode; never changed.
        data: the training samples, or any others whose figures are to be named "train".
        test: samples that had no part in training; None leaves out the test figures and the gaps.
        loss: loss per sample, as in `EmpiricalRisk`; `"cross_entropy"` is its default.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `Generalization`.

    Raises:
        ValueError: if the test samples are the training samples.
        ValueError: if the network or the data cannot be measured (see `EmpiricalRisk`).

    >>> data = LabelledData(torch.eye(2), torch.tensor([0, 1]))
    >>> test = LabelledData(torch.eye(2), torch.tensor([0, 0]), classes=2)
    >>> result = generalization(nn.Identity().eval(), data, test)
    >>> result.train_accuracy, result.test_accuracy, result.summary()["accuracy_gap"]
    (1.0, 0.5, 0.5)
    """
    if test is not None and test.fingerprint == data.fingerprint:
        msg = (
            f"test must be other samples than data, got the same {len(data)} samples twice. Give held-out samples, or "
            "leave test out"
        )
        raise ValueError(msg)
    found = []
    subject: dict[str, object] = {}
    for split, samples in ((TRAIN, data), (TEST, test)):
        if samples is not None:
            risk = EmpiricalRisk(model, samples, loss, batch_size)
            found.append((split, *per_sample(risk)))
            subject |= {"test_data": risk.describe()["data"]} if split == TEST else risk.describe()
    return Generalization(
        split=tuple(split for split, losses, _ in found for _ in range(len(losses))),
        losses=torch.cat([losses for _, losses, _ in found]),
        correct=torch.cat([correct for _, _, correct in found]),
        settings=settings("generalization", subject) | {"own_samples": trained_on(model, data)},
    )
