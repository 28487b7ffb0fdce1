"""Adversarial accuracy: the fraction still classified correctly when each input may be moved by a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from flatprobe.attacks import NORMS, Box, fgsm, pgd
from flatprobe.attacks.fixed import PGD_STEPS
from flatprobe.attacks.points import adversarial, distance
from flatprobe.data import LabelledData, check_data
from flatprobe.functional.losses import misclassified
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.trained_on import own_samples, warn_of_own
from flatprobe.probes.per_sample import Subject, attacked
from flatprobe.utils import rng
from flatprobe.utils.arguments import at_least, numbers, one_of
from flatprobe.utils.confidence import wilson
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas


ATTACKS = ("fgsm", "pgd")
_BEYOND = 1e-3  # of the budget, that a point may be longer by rounding
Curve = Float64[Tensor, " budgets"]


@runtime_checkable
class NearestFound(Protocol):
    """`GeometricMargins`, as far as an accuracy is capped by them: the distances of adversarial points, by attack."""

    @property
    def upper(self) -> Tensor:
        """(samples,) the nearest."""

    @property
    def uppers(self) -> Mapping[str, Tensor]:
        """Attack -> (samples,)."""

    @property
    def settings(self) -> dict[str, Any]:
        """What was measured."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AdversarialAccuracy(Result):
    """Which samples withstand the attack at each budget.

    Attributes:
        budgets: (budgets,) in the inputs' units, as given.
        correct: (budgets, samples) whether the class stayed right.
        labels: (samples,).
    """

    budgets: Curve
    correct: Bool[Tensor, "budgets samples"]
    labels: Int64[Tensor, " samples"]

    @property
    def accuracy(self) -> Curve:
        """The fraction correct at each budget."""
        return self.correct.double().mean(1)

    def band(self, level: float = 0.95) -> tuple[Curve, Curve]:
        """Wilson's interval, pointwise: how far the accuracy on fresh samples under the same attack may lie.

        It covers samples of the distribution that these were drawn from, for a network that was not trained on them;
        of a network's own training samples it says nothing about others.

        Args:
            level: confidence; 0.95 by convention.

        Returns:
            Lower and upper ends, (budgets,) each.

        Warns:
            UserWarning: where `fp.train` trained the network on these very samples.
        """
        warn_of_own(self.settings)
        return self.interval(level)

    def interval(self, level: float = 0.95) -> tuple[Curve, Curve]:
        """`band` for whoever says himself which samples it is of, as the report does."""
        return wilson(self.accuracy, len(self.labels), level)

    def capped(self, margins: NearestFound) -> "AdversarialAccuracy":
        """The same without the samples for which a minimum-norm attack found an adversarial point within the budget.

        What withstands PGD need not withstand an attack that looks for the nearest point; each is a valid attack, and
        the accuracy under both is the smaller. `fp.compare` does this where it measures both.

        Args:
            margins: the upper ends for the same network, data and norm, found within the same box, or within one where
                this attack had none.

        Returns:
            `AdversarialAccuracy`; its record says which attacks it was capped by.

        Raises:
            ValueError: if the margins are those of something else.
        """
        own, theirs = self.settings, margins.settings
        for name in ("network", "data"):
            if own["subject"][name] != theirs["subject"][name]:
                msg = f"the margins are those of another {name}; expected those of the same network and data"
                raise ValueError(msg)
        boxes = [
            None if found is None else list(found) for found in (own["arguments"]["box"], theirs["arguments"]["box"])
        ]
        if own["arguments"]["norm"] != theirs["arguments"]["norm"] or boxes[0] not in (None, boxes[1]):
            msg = (
                f"the margins are in {theirs['arguments']['norm']} within the box {boxes[1]}, and the budgets in "
                f"{own['arguments']['norm']} within {boxes[0]}; expected the same norm and box"
            )
            raise ValueError(msg)
        subject = {**own["subject"], "capped by": list(margins.uppers)}
        correct = self.correct & (margins.upper[None] > self.budgets[:, None])
        return replace(self, correct=correct, settings={**own, "subject": subject})

    def summary(self) -> dict[str, float]:
        """The mean over the budgets, and the accuracy at each."""
        return {"mean_accuracy": float(self.accuracy.mean())} | {
            f"accuracy({budget:g})": float(p) for budget, p in zip(self.budgets, self.accuracy, strict=True)
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a budget and sample."""
        import pandas as pd

        budgets, samples = self.correct.shape
        columns = {
            "budget": np.repeat(self.budgets.numpy(), samples),
            "sample": np.tile(np.arange(samples), budgets),
            "label": np.tile(self.labels.numpy(), budgets),
            "correct": self.correct.flatten().numpy(),
        }
        return pd.DataFrame(columns)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "AdversarialAccuracy":
        """The inverse of `to_frame`."""
        samples = int(frame["sample"].max()) + 1
        budgets = torch.from_numpy(frame["budget"].to_numpy(copy=True)[::samples].copy())
        correct = torch.from_numpy(frame["correct"].to_numpy(copy=True)).view(-1, samples)
        labels = torch.from_numpy(frame["label"].to_numpy(copy=True)[:samples].copy())
        return cls(budgets=budgets, correct=correct, labels=labels, settings=settings)


@standalone
def adversarial_accuracy(
    model: nn.Module,
    data: LabelledData,
    *,
    budgets: float | Sequence[float] | Any,
    norm: str = "l2",
    attack: str = "pgd",
    steps: int = PGD_STEPS,
    restarts: int = 1,
    box: Box = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> AdversarialAccuracy:
    """(1/n) sum_i 1[f classifies every attacked x_i' with ||x_i' - x_i|| <= e correctly], for a grid of budgets e.

    From the least budget to the largest, and only on the samples that still stand: a point that is adversarial within a
    budget is within every larger one, so it is carried over, and the curve does not increase. It lies above the true
    worst-case accuracy by what the attack misses. FGSM costs one forward and one backward pass and a forward pass, PGD
    `restarts` times `steps` + 1 of each, a budget.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that wants normalised inputs in `fp.Normalised`,
            so that budgets are in pixel units.
        data: inputs and labels; the inputs one floating tensor.
        budgets: one or several lengths of the perturbation in the inputs' units; 0 is the accuracy without attack.
        norm: `"l2"` (default) or `"linf"`.
        attack: `"pgd"` (default) or `"fgsm"`.
        steps: of PGD, each of 2.5 budgets / steps; 20 by convention.
        restarts: random starts of PGD; a sample stands where it withstands all of them.
        box: least and largest value of an input, or None (default) for all of R^d.
        seed: which family of random starts; the same at every budget.
        batch_size: samples at a time; None (default) reads the measured table.

    Returns:
        `AdversarialAccuracy`, in the budgets' given order.

    Raises:
        ValueError: for no, negative or not finite budgets, an unknown attack or norm, counts below 1, a box that does
            not contain the data, or a network or data that cannot be probed.
        TypeError: if the inputs are not one floating tensor.

    Source: SPEC section 3; O20 eqs 8.2 to 8.5; Madry et al. 2018.
    """
    levels = numbers(budgets=budgets)
    if not levels or not all(0 <= budget < float("inf") for budget in levels):
        msg = f"budgets is {levels}; expected at least one finite budget >= 0 (0 is the accuracy without attack)"
        raise ValueError(msg)
    one_of("attack", attack, ATTACKS)
    one_of("norm", norm, NORMS)
    at_least(1, steps=steps, restarts=restarts)
    network, data = Network(model), check_data(data)
    size = network.batch_size(batch_size)
    order = sorted(range(len(levels)), key=levels.__getitem__)
    parts = []
    for subject in attacked(network, data, size, "adversarial_accuracy", box):
        with torch.no_grad():
            standing = ~misclassified(subject.forward()(subject.inputs), subject.labels)
        correct = torch.zeros(len(levels), len(standing), dtype=torch.bool, device="cpu")
        for place in order:
            for restart in range(restarts if attack == "pgd" and levels[place] > 0 else 1):
                if levels[place] > 0 and bool(standing.any()):
                    noise = _noise(subject, seed, restart) if attack == "pgd" else None
                    standing = _withstands(subject, standing, levels[place], noise, norm, box, steps)
            correct[place] = standing.cpu()
        parts.append(correct)
    described = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    arguments = {"norm": norm, "attack": attack, "steps": steps, "restarts": restarts, "box": box, "seed": seed}
    return AdversarialAccuracy(
        budgets=torch.tensor(levels, dtype=torch.float64, device="cpu"),
        correct=torch.cat(parts, 1),
        labels=data.labels,
        settings=settings("adversarial_accuracy", described, budgets=levels, **arguments)
        | {"own_samples": own_samples(model, data)},
    )


def _noise(subject: Subject, seed: int, restart: int) -> Tensor:
    start, inputs = subject.start, subject.inputs
    return rng.sample_normal(start, start + len(inputs), inputs.shape[1:], seed, "pgd", restart).to(inputs)


def _withstands(
    subject: Subject, standing: Tensor, budget: float, noise: Tensor | None, norm: str, box: Box, steps: int
) -> Tensor:
    """Which samples still stand after one more attack on those that did; FGSM where no noise is given."""
    forward, own, labels = subject.forward(standing), subject.inputs[standing], subject.labels[standing]
    sizes = torch.full((len(own),), budget, dtype=own.dtype, device=own.device)
    if noise is None:
        points = fgsm(forward, own, labels, sizes, norm=norm, box=box)
    else:
        points, _ = pgd(forward, own, labels, sizes, norm=norm, box=box, steps=steps, noise=noise[standing])
    with torch.no_grad():
        # Rounding may carry a point past a budget that is small against its inputs.
        within = distance(points, own, norm) <= budget * (1 + _BEYOND)
        fallen = adversarial(forward(points), labels) & within
    left = standing.clone()
    left[standing] = ~fallen
    return left
