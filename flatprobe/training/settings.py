"""What a training is asked to do, checked."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.checks import Named, as_json, at_least, one_of, plain, positive
from flatprobe.kernels import per_sample_loss
from flatprobe.training.constraints import CONSTRAINTS, Constraint
from flatprobe.training.optimizers import check_optimizer
from flatprobe.training.parts import described, made
from flatprobe.training.penalties import PENALTIES, Penalty
from flatprobe.training.schedules import Schedule, check_schedule
from flatprobe.training.transforms import TRANSFORMS, Transform


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
    penalties: list[tuple[float, Penalty]]
    transforms: tuple[Transform, ...]
    constraints: tuple[Constraint, ...]
    precision: str | None
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
        one_of("precision", self.precision, (None, "bfloat16"))
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
        parts = {
            "penalties": [[strength, described(penalty, PENALTIES)] for strength, penalty in self.penalties],
            "transforms": [described(part, TRANSFORMS) for part in self.transforms],
            "constraints": [described(part, CONSTRAINTS) for part in self.constraints],
            "precision": self.precision,
        }
        plain_settings = {name: value for name, value in vars(self).items() if name not in parts}
        # Left out where there are none: the record of a plain training says no more than it needs to.
        used = {name: value for name, value in parts.items() if value}
        settings: dict[str, Any] = json.loads(json.dumps(plain_settings | named | used, default=as_json))
        return settings


def made_penalties(asked: Iterable[object]) -> list[tuple[float, Penalty]]:
    """(strength, penalty) pairs, the penalties made where they are asked for by name.

    Raises:
        ValueError: if an entry is no such pair, or a strength is negative or not finite.
    """
    found: list[tuple[float, Penalty]] = []
    for entry in asked:
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            msg = f"an entry of penalties is {entry!r}; expected a pair (strength, penalty)"
            raise ValueError(msg)
        strength = as_json(entry[0]) if hasattr(entry[0], "item") else entry[0]
        penalty = made("penalty", entry[1], PENALTIES)
        if not isinstance(strength, int | float) or not 0 <= strength < math.inf:
            msg = (
                f"the strength of the penalty {described(penalty, PENALTIES)['name']} is {strength!r}; expected a "
                "finite number, at least 0"
            )
            raise ValueError(msg)
        found.append((float(strength), penalty))
    return found


def made_transforms(asked: Iterable[object]) -> tuple[Transform, ...]:
    """The transforms, made where they are asked for by name."""
    return tuple(made("transform", entry, TRANSFORMS) for entry in asked)


def made_constraints(asked: Iterable[object]) -> tuple[Constraint, ...]:
    """The constraints, made where they are asked for by name."""
    return tuple(made("constraint", entry, CONSTRAINTS) for entry in asked)


def reached(settings: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether the stopping rule is met at the end of an epoch, given its row of the history.

    Args:
        settings: `epochs`, `until` and `target_loss`, as `Settings.as_json` has them.
        row: of the history.
    """
    if settings["until"] == "interpolation":
        return bool(row["train_accuracy"] == 1.0)
    if settings["until"] == "loss":
        return bool(row["train_loss"] <= settings["target_loss"])
    return bool(row["epoch"] == settings["epochs"])
