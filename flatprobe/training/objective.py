"""What one step minimises: the objective on the transformed batch, and the penalties, in one forward pass."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flatprobe.data.inputs import Inputs, as_arguments
from flatprobe.functional.losses import per_sample_loss
from flatprobe.functional.user_loss import Loss
from flatprobe.network.modules import logits_of
from flatprobe.network.network import Network
from flatprobe.training.diverged import CURE, DivergedError
from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels, check_labels, losses
from flatprobe.training.penalties import PENALTIES, Penalty
from flatprobe.training.registry import short_name
from flatprobe.training.transforms import TRANSFORMS, Transform

OBJECTIVE = "loss"
# Names that the history has columns of its own for, or that stand for the objective.
_MEASURED = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
_COLUMNS = frozenset((OBJECTIVE, "epoch", "learning_rate", "seconds", *_MEASURED))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """I(w) + sum_k strength_k P_k(w) on a batch.

    The penalties are copied, since some keep a memory from step to step (`memory`, a dictionary of tensors).

    Attributes:
        module: the network that is trained.
        placed: the same network's `Network`, which knows where its inputs belong.
        loss: l of the objective.
        penalties: (strength, penalty) by the name that the history has for the penalty; those of strength 0 are left
            out.
        transforms: applied to each batch, one after the other.
        precision: None, or `"bfloat16"`: the objective's own forward pass under `torch.autocast`. Penalties and
            transforms then have another pass, in the weights' precision.
        seed: of the penalties' and transforms' random numbers, which are functions of (seed, step).
    """

    module: nn.Module
    placed: Network
    loss: Loss
    penalties: Mapping[str, tuple[float, Penalty]] = field(default_factory=dict)
    transforms: tuple[Transform, ...] = ()
    precision: str | None = None
    seed: int = 0

    def __call__(self, inputs: Inputs, labels: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """What to differentiate, and its terms by name: the objective's mean loss and the penalties without strength.

        Args:
            inputs: a batch as the data hold it.
            labels: its classes.
            step: counted from 0 at the beginning of the training.

        Raises:
            DivergedError: if a penalty cannot take what the network returns, and the objective is not finite.
            ValueError: if a penalty or a transform returns what is none.
        """
        placed, answers = self._transformed(self.placed.prepare(inputs), labels.to(self.placed.device), step)
        if not self.penalties:
            objective = self._objective(placed, answers)
            return objective, {OBJECTIVE: objective}
        shared = self.precision is None
        passed = self._pass(placed, answers, ("penalty", step), updates=shared)
        objective = passed.loss if shared else self._objective(placed, answers)
        try:
            values = {name: _term(name, penalty(passed)) for name, (_, penalty) in self.penalties.items()}
        except Exception as error:
            if bool(objective.isfinite()):
                raise
            msg = f"the term {OBJECTIVE!r} is {float(objective.detach())} in step {step} (counted from 0); {CURE}"
            raise DivergedError(msg) from error
        total = objective
        for name, (strength, _) in self.penalties.items():
            total = total + strength * values[name]
        return total, {OBJECTIVE: objective, **values}

    def _transformed(self, inputs: Inputs, labels: Labels, step: int) -> tuple[Inputs, Labels]:
        for index, transform in enumerate(self.transforms):
            passed = self._pass(inputs, labels, ("transform", index, step), updates=False)
            points, labels = _result(transform, transform(passed))
            inputs = passed.with_points(points.detach())
        return inputs, labels

    def _pass(self, inputs: Inputs, labels: Labels, words: tuple[str | int, ...], *, updates: bool) -> ForwardPass:
        return ForwardPass(
            self.module,
            inputs,
            labels,
            loss=self.loss,
            key=(self.seed, *words),
            updates=updates,
            lay_out=self.placed.laid_out,
        )

    def _objective(self, inputs: Inputs, labels: Labels) -> Tensor:
        args, kwargs = as_arguments(self.placed.laid_out(inputs))
        if self.precision is None:
            logits = logits_of(self.module(*args, **kwargs), self.module)
        else:
            with torch.autocast(self.placed.device.type, getattr(torch, self.precision)):
                logits = logits_of(self.module(*args, **kwargs), self.module).to(self.placed.dtype)
        return losses(per_sample_loss(self.loss), logits, labels).mean()


def _term(name: str, value: object) -> Tensor:
    """What a penalty returned.

    Raises:
        ValueError: for what is no scalar tensor, or one that no weight has a gradient of.
    """
    if not isinstance(value, Tensor) or value.shape != ():
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        msg = f"the penalty {name!r} returned {found}; expected a scalar tensor, a mean over the batch: values.mean()"
        raise ValueError(msg)
    if not value.requires_grad:
        msg = (
            f"the penalty {name!r} returned a scalar without a gradient in the weights, which changes nothing; "
            "expected one that depends on a trained weight: look for .detach(), .item() or torch.no_grad() in it"
        )
        raise ValueError(msg)
    return value


def _result(transform: Transform, returned: object) -> tuple[Tensor, Labels]:
    """What a transform returned.

    Raises:
        ValueError: for what are no inputs with as many labels.
    """
    name = f"the transform {short_name(transform, TRANSFORMS)!r}"
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[0], Tensor):
        kinds = [type(part).__name__ for part in (returned if isinstance(returned, tuple) else (returned,))]
        msg = f"{name} returned ({', '.join(kinds)}); expected (inputs, labels), tensors both"
        raise ValueError(msg)
    points, labels = returned
    if points.ndim == 0:
        msg = f"{name} returned inputs without a dimension; expected (samples, ...)"
        raise ValueError(msg)
    check_labels(labels, len(points), name)
    return points, labels


def named_penalties(penalties: list[tuple[float, Penalty]]) -> dict[str, tuple[float, Penalty]]:
    """Copies of the penalties by name, a number behind the names of those that are there twice; strength 0 is none."""
    found: dict[str, tuple[float, Penalty]] = {}
    for strength, penalty in penalties:
        if strength == 0:
            continue
        name = short_name(penalty, PENALTIES)
        free, number = name, 1
        while free in found or free in _COLUMNS:
            number += 1
            free = f"{name}_{number}"
        found[free] = (strength, copy.deepcopy(penalty))
    return found
