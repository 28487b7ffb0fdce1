"""Objective of one step: the loss on the transformed batch plus the penalties, in one forward pass."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from flatprobe.data.inputs import Inputs, as_arguments, tensors
from flatprobe.functional.losses import per_sample_loss
from flatprobe.functional.user_loss import Loss
from flatprobe.network.network import Network
from flatprobe.network.outputs import logits_of
from flatprobe.training.diverged import FIX, DivergedError
from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels, Mixture, check_labels, mean_loss, sample_losses
from flatprobe.training.penalties import PENALTIES, Penalty
from flatprobe.training.registry import short_name
from flatprobe.training.transforms import TRANSFORMS, Transform

LOSS = "loss"
# Names of the history's other columns, which no penalty may take.
_MEASURED = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
_COLUMNS = frozenset((LOSS, "epoch", "learning_rate", "seconds", *_MEASURED))


@dataclass(frozen=True, kw_only=True)
class Objective:
    """I(w) + sum_k strength_k P_k(w) on a batch.

    Attributes:
        module: the network in training.
        placed: the same network as a `Network`, which knows the device and layout of its inputs.
        loss: the loss l.
        penalties: (strength, penalty) by the penalty's name in the history. Penalties may keep a `memory` between
            steps, a dictionary of tensors.
        transforms: applied to each batch in order.
        precision: None, or `"bfloat16"`: the forward pass of the loss under `torch.autocast`. Penalties and
            transforms then have a second pass, in the weights' precision.
        seed: of the random numbers of penalties and transforms, which are functions of (seed, step).
    """

    module: nn.Module
    placed: Network
    loss: Loss
    penalties: Mapping[str, tuple[float, Penalty]] = field(default_factory=dict)
    transforms: tuple[Transform, ...] = ()
    precision: str | None = None
    seed: int = 0

    def __call__(self, inputs: Inputs, labels: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective, and its terms by name: the mean loss and the penalties without strength.

        Args:
            inputs: a batch from the data.
            labels: its classes.
            step: counted from 0 at the beginning of the training.

        Raises:
            DivergedError: if a penalty fails where the loss is not finite.
            ValueError: if a penalty returns no scalar, or a transform no inputs with labels.
        """
        placed, targets = self._transform(self.placed.prepare(inputs), labels.to(self.placed.device), step)
        if not self.penalties:
            loss = self._mean_loss(placed, targets)
            return loss, {LOSS: loss}
        shared = self.precision is None
        passed = self._pass(placed, targets, ("penalty", step), updates=shared)
        loss = passed.loss if shared else self._mean_loss(placed, targets)
        try:
            values = {name: _check_penalty(name, penalty(passed)) for name, (_, penalty) in self.penalties.items()}
        except Exception as error:
            if bool(loss.isfinite()):
                raise
            msg = f"the term {LOSS!r} is {float(loss.detach())} in step {step} (counted from 0); {FIX}"
            raise DivergedError(msg) from error
        total = loss
        for name, (strength, _) in self.penalties.items():
            total = total + strength * values[name]
        return total, {LOSS: loss, **values}

    def _transform(self, inputs: Inputs, labels: Labels, step: int) -> tuple[Inputs, Labels]:
        for index, transform in enumerate(self.transforms):
            passed = self._pass(inputs, labels, ("transform", index, step), updates=False)
            points, labels = _check_transformed(transform, transform(passed))
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

    def _mean_loss(self, inputs: Inputs, labels: Labels) -> Tensor:
        args, kwargs = as_arguments(self.placed.laid_out(inputs))
        count = len(tensors(inputs)[0])
        if self.precision is None:
            logits = logits_of(self.module(*args, **kwargs), self.module, samples=count)
        else:
            with torch.autocast(self.placed.device.type, getattr(torch, self.precision)):
                outputs = self.module(*args, **kwargs)
                logits = logits_of(outputs, self.module, samples=count).to(self.placed.dtype)
        # Transforms may return labels that are no classes, which torch leaves out of its mean.
        if self.transforms or isinstance(labels, Mixture):
            return sample_losses(self._kernel, logits, labels).mean()
        return mean_loss(self._kernel, logits, labels)

    @cached_property
    def _kernel(self) -> Callable[[Tensor, Tensor], Tensor]:
        return per_sample_loss(self.loss)


def _check_penalty(name: str, value: object) -> Tensor:
    """The value of a penalty, checked.

    Raises:
        ValueError: for anything but a scalar tensor.
        ValueError: for a scalar without a gradient in the weights.
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


def _check_transformed(transform: Transform, returned: object) -> tuple[Tensor, Labels]:
    """The inputs and labels of a transform, checked.

    Raises:
        ValueError: for anything but inputs and as many labels.
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


def name_penalties(penalties: list[tuple[float, Penalty]]) -> dict[str, tuple[float, Penalty]]:
    """Copies of the penalties by name, numbered where a name repeats, without those of strength 0."""
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
