"""Adversarial accuracy: the fraction of samples still classified correctly after an attack of bounded length."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from flatprobe.attacks import NORMS, Box, fgsm, pgd
from flatprobe.attacks.fixed import PGD_STEPS
from flatprobe.attacks.points import adversarial, distance
from flatprobe.data import LabelledData, check_classes
from flatprobe.functional.losses import misclassified
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.trained_on import trained_on, warn_of_training_data
from flatprobe.probes.subjects import Subject, each_subject
from flatprobe.utils import rng
from flatprobe.utils.arguments import Checked, Numbers, Whole, at_least, numbers, one_of
from flatprobe.utils.confidence import wilson
from flatprobe.utils.results import Result, settings

ATTACKS = ("fgsm", "pgd")
_BEYOND = 1e-3  # the share of the budget by which rounding may lengthen a perturbation
Curve = Float64[Tensor, " budgets"]


@runtime_checkable
class NearestFound(Protocol):
    """The part of `GeometricMargins` that caps an accuracy: the distances of adversarial points, by attack."""

    @property
    def upper(self) -> Tensor:
        """(samples,) distance of the nearest adversarial point."""

    @property
    def uppers(self) -> Mapping[str, Tensor]:
        """Attack -> (samples,) distances."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the measurement."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AdversarialAccuracy(Result):
    """Samples that withstand the attack, per budget. The table has one row per budget and sample.

    Attributes:
        budgets: (budgets,) in the inputs' units, as given.
        correct: (budgets, samples) True where the class stayed right.
        labels: (samples,).
    """

    _columns: ClassVar = {"budget": "budgets", "sample": "", "label": "labels", "correct": "correct"}
    _axes: ClassVar = {"budget": 0, "sample": 1, "label": 1}

    budgets: Curve
    correct: Bool[Tensor, "budgets samples"]
    labels: Int64[Tensor, " samples"]

    @property
    def accuracy(self) -> Curve:
        """The fraction correct at each budget."""
        return self.correct.double().mean(1)

    def band(self, level: float = 0.95) -> tuple[Curve, Curve]:
        """Wilson's interval, pointwise, for the accuracy on fresh samples under the same attack.

        The interval is valid for samples of the same distribution that had no part in training the network. Measured
        on training samples, it says nothing about other samples.

        Args:
            level: confidence; 0.95 by convention.

        Returns:
            Lower and upper limits, (budgets,) each.

        Warns:
            UserWarning: where `fp.train` trained the network on these very samples.
        """
        warn_of_training_data(self.settings)
        return self.interval(level)

    def interval(self, level: float = 0.95) -> tuple[Curve, Curve]:
        """The `band` without its warning, for a caller that names the samples itself, as the report does."""
        return wilson(self.accuracy, len(self.labels), level)

    def capped(self, margins: NearestFound) -> "AdversarialAccuracy":
        """Accuracy under this attack and the minimum-norm attacks of `margins`.

        A sample that withstands PGD need not withstand an attack that searches for the nearest adversarial point. Here
        a sample counts as correct at a budget only if it withstands both. `fp.compare` caps where it measures both.

        Args:
            margins: upper bounds for the same network, data and norm, found within the same box. Where this attack had
                no box, the margins may have one.

        Returns:
            `AdversarialAccuracy`; its record names the attacks that capped it.

        Raises:
            ValueError: if the margins belong to another network, other data, another norm or another box.
        """
        own, theirs = self.settings, margins.settings
        for name in ("network", "data"):
            if own["subject"][name] != theirs["subject"][name]:
                msg = f"the margins belong to another {name}; expected those of the same network and data"
                raise ValueError(msg)
        boxes = [
            None if found is None else list(found) for found in (own["arguments"]["box"], theirs["arguments"]["box"])
        ]
        if own["arguments"]["norm"] != theirs["arguments"]["norm"] or boxes[0] not in (None, boxes[1]):
            msg = (
                f"margins must have the norm and the box of the accuracy, {own['arguments']['norm']} and {boxes[0]}, "
                f"got {theirs['arguments']['norm']} and {boxes[1]}. Measure the margins again with norm= and box="
            )
            raise ValueError(msg)
        subject = {**own["subject"], "capped by": list(margins.uppers)}
        correct = self.correct & (margins.upper[None] > self.budgets[:, None])
        return replace(self, correct=correct, settings={**own, "subject": subject})

    @property
    def shown(self) -> int:
        """Position of the headline's budget, a third of the way up the grid."""
        order = self.budgets.argsort()
        return int(order[(len(order) + 1) // 3])

    def summary(self) -> dict[str, float]:
        """Accuracy: the value at the headline's budget, the mean over the budgets, and the value at each."""
        found = {f"accuracy({budget:g})": float(p) for budget, p in zip(self.budgets, self.accuracy, strict=True)}
        first = list(found)[self.shown]
        return {first: found[first], "mean_accuracy": float(self.accuracy.mean())} | found


@standalone
def adversarial_accuracy(
    model: nn.Module,
    data: LabelledData,
    *,
    budgets: Numbers,
    norm: Checked[Literal["l2", "linf"]] = "l2",
    attack: Checked[Literal["pgd", "fgsm"]] = "pgd",
    steps: Whole = PGD_STEPS,
    restarts: Whole = 1,
    box: Box = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> AdversarialAccuracy:
    """(1/n) sum_i 1[f classifies every attacked x_i' with ||x_i' - x_i|| <= e correctly], for a grid of budgets e.

    Budgets are attacked in increasing order, each on the samples that withstood the smaller ones. An adversarial point
    within a budget is within every larger budget, so the curve does not increase. The attack may miss adversarial
    points: the result is an upper bound of the worst-case accuracy.

    Cost per budget:

    - FGSM: 2 forward passes and 1 backward pass,
    - PGD: `restarts` (`steps` + 1) forward and backward passes.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that takes normalized inputs in `fp.Normalised`,
            so that budgets are in pixel units.
        data: inputs and labels; the inputs must be one floating tensor.
        budgets: one or several lengths of the perturbation in the inputs' units; 0 is the accuracy without attack.
        norm: `"l2"` (default) or `"linf"`.
        attack: `"pgd"` (default) or `"fgsm"`.
        steps: PGD steps, each of length 2.5 budget / steps; 20 by convention.
        restarts: random starts of PGD; a sample is correct where it withstands all of them.
        box: least and largest value of an input, or None (default) for all of R^d.
        seed: of the random starts, which are the same at every budget.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `AdversarialAccuracy`, in the budgets' given order.

    Raises:
        ValueError: for an empty, negative or infinite budget, an unknown attack or norm, or a count below 1.
        ValueError: if the box does not contain the data, or the network or the data cannot be probed.
        TypeError: if the inputs are not one floating tensor.

    Source: Oberman (2020), eqs 8.2 to 8.5 [O20]; Madry et al. (2018).
    """
    levels = numbers(budgets=budgets)
    if not levels or not all(0 <= budget < float("inf") for budget in levels):
        msg = f"budgets must be one or more finite numbers >= 0, got {levels}. 0 is the accuracy without attack"
        raise ValueError(msg)
    one_of("attack", attack, ATTACKS)
    one_of("norm", norm, NORMS)
    at_least(1, steps=steps, restarts=restarts)
    network, data = Network(model), check_classes(data)
    size = network.batch_size(batch_size, data)
    order = sorted(range(len(levels)), key=levels.__getitem__)
    parts = []
    for subject in each_subject(network, data, size, "adversarial_accuracy", box):
        standing = ~misclassified(subject.logits, subject.labels)
        correct = standing.new_zeros(len(levels), len(standing))
        for place in order:
            for restart in range(restarts if attack == "pgd" and levels[place] > 0 else 1):
                # The count is the one wait for a device.
                if levels[place] > 0 and len(rows := standing.nonzero().flatten()):
                    noise = _noise(subject, seed, restart) if attack == "pgd" else None
                    standing = _withstands(subject, standing, rows, levels[place], noise, norm, box, steps)
            correct[place] = standing
        parts.append(correct)
    described = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    arguments = {"norm": norm, "attack": attack, "steps": steps, "restarts": restarts, "box": box, "seed": seed}
    return AdversarialAccuracy(
        budgets=torch.tensor(levels, dtype=torch.float64, device="cpu"),
        correct=torch.cat(parts, 1).cpu(),
        labels=data.labels,
        settings=settings("adversarial_accuracy", described, budgets=levels, **arguments)
        | {"own_samples": trained_on(model, data)},
    )


def _noise(subject: Subject, seed: int, restart: int) -> Tensor:
    start, x = subject.start, subject.inputs
    return rng.sample_normal(start, start + len(x), x.shape[1:], seed, "pgd", restart, device=x.device).to(x)


def _withstands(
    subject: Subject,
    standing: Tensor,
    rows: Tensor,
    budget: float,
    noise: Tensor | None,
    norm: str,
    box: Box,
    steps: int,
) -> Tensor:
    """The samples of `standing`, at `rows`, that withstand one more attack: PGD from the noise, FGSM without."""
    forward, own, labels = subject.forward(rows), subject.inputs[rows], subject.labels[rows]
    sizes = torch.full((len(own),), budget, dtype=own.dtype, device=own.device)
    if noise is None:
        points = fgsm(forward, own, labels, sizes, norm=norm, box=box)
    else:
        points, _ = pgd(forward, own, labels, sizes, norm=norm, box=box, steps=steps, noise=noise[rows])
    with torch.no_grad():
        # Rounding may carry a point past a budget that is small against its inputs.
        within = distance(points, own, norm) <= budget * (1 + _BEYOND)
        fallen = adversarial(forward(points), labels) & within
    return standing.index_copy(0, rows, ~fallen)
