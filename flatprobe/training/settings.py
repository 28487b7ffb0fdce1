"""What a training is asked to do, checked."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.checks import Named, as_json, at_least, one_of, plain, positive
from flatprobe.kernels import per_sample_loss
from flatprobe.training.optimizers import check_optimizer
from flatprobe.training.schedules import Schedule, check_schedule


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of `train` that decide what is computed; its docstring says what they mean.

    Raises:
        ValueError: if one is out of its range.
    """

    epochs: int
    until: str | None
    target_loss: float | None
    objective: Named
    optimizer: Named
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: Schedule
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if hasattr(value, "item"):  # NumPy's scalars, which torch does not take everywhere
                object.__setattr__(self, name, as_json(value))
        at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        positive(learning_rate=self.learning_rate, target_loss=self.target_loss)
        one_of("until", self.until, (None, "interpolation", "loss"))
        if not 0 <= self.momentum < 1:
            msg = f"momentum is {self.momentum}; expected at least 0 and below 1"
            raise ValueError(msg)
        if not 0 <= self.weight_decay < math.inf:
            msg = f"weight_decay is {self.weight_decay}; expected a finite number, at least 0"
            raise ValueError(msg)
        if (self.target_loss is None) == (self.until == "loss"):
            msg = (
                f"until is {self.until!r} and target_loss {self.target_loss}; expected a loss with until='loss', "
                "and none otherwise"
            )
            raise ValueError(msg)
        per_sample_loss(self.objective)
        check_optimizer(self.optimizer, momentum=self.momentum)
        check_schedule(self.schedule, self.epochs)

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON has them (a tuple is a list there), for the record and to compare with one."""
        named = {
            "objective": plain(self.objective),
            "optimizer": plain(self.optimizer),
            "schedule": None if self.schedule is None else plain(self.schedule),
        }
        settings: dict[str, Any] = json.loads(json.dumps(vars(self) | named, default=as_json))
        return settings

    def reached(self, row: Mapping[str, Any]) -> bool:
        """Whether the stopping rule is met at the end of an epoch, given its row of the history."""
        if self.until == "interpolation":
            return bool(row["train_accuracy"] == 1.0)
        if self.until == "loss":
            return bool(row["train_loss"] <= self.target_loss)
        return bool(row["epoch"] == self.epochs)
