"""What a training is asked to do, checked."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.functional.losses import per_sample_loss
from flatprobe.functional.user_loss import Loss, as_loss, describe_loss
from flatprobe.training.constraints import CONSTRAINTS, Constraint
from flatprobe.training.optimizers import check_optimizer
from flatprobe.training.penalties import PENALTIES, Penalty
from flatprobe.training.registry import described, made
from flatprobe.training.schedules import Schedule, check_schedule
from flatprobe.training.transforms import TRANSFORMS, Transform
from flatprobe.utils.arguments import (
    Named,
    Number,
    Whole,
    as_json,
    at_least,
    given,
    is_number,
    one_of,
    plain,
    positive,
    scalar,
    whole,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of `train` that decide what is computed; its docstring says what they mean.

    Raises:
        ValueError: if one is out of its range.
    """

    epochs: Whole
    until: str | None
    target_loss: Number | None
    objective: Loss | Any
    optimizer: Named | Any
    learning_rate: Number
    momentum: Number
    weight_decay: Number
    schedule: Schedule
    batch_size: Whole
    penalties: list[tuple[float, Penalty]]
    transforms: tuple[Transform, ...]
    constraints: tuple[Constraint, ...]
    precision: str | None
    seed: Whole

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if hasattr(value, "item"):  # NumPy's scalars, which torch does not take everywhere
                object.__setattr__(self, name, as_json(value))
        given(epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate)
        at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        positive(learning_rate=self.learning_rate, target_loss=self.target_loss)
        whole(seed=self.seed)
        one_of("until", self.until, (None, "interpolation", "loss"))
        if not is_number(self.momentum) or not 0 <= self.momentum < 1:
            msg = f"momentum is {self.momentum!r}; expected at least 0 and below 1"
            raise ValueError(msg)
        if not is_number(self.weight_decay) or not 0 <= self.weight_decay < math.inf:
            msg = f"weight_decay is {self.weight_decay!r}; expected a finite number, at least 0"
            raise ValueError(msg)
        if (self.target_loss is None) == (self.until == "loss"):
            msg = (
                f"until is {self.until!r} and target_loss {self.target_loss}; expected a loss with until='loss', "
                "and none otherwise"
            )
            raise ValueError(msg)
        one_of("precision", self.precision, (None, "bfloat16"))
        object.__setattr__(self, "objective", as_loss(self.objective))
        per_sample_loss(self.objective)
        check_optimizer(self.optimizer, momentum=self.momentum)
        check_schedule(self.schedule, self.epochs)

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON has them (a tuple is a list there), for the record and to compare with one."""
        named = {
            "objective": describe_loss(self.objective),
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


def made_penalties(asked: object) -> list[tuple[float, Penalty]]:
    """(strength, penalty) pairs, the penalties made where they are asked for by name.

    Raises:
        ValueError: for what is no list, or an entry that is no such pair; if a strength is negative or not finite.
    """
    found: list[tuple[float, Penalty]] = []
    for entry in listed("penalties", asked, "(strength, penalty)"):
        if isinstance(entry, tuple | list) and entry and all(isinstance(part, tuple | list) for part in entry):
            msg = (
                f"an entry of penalties is {entry!r}, a list of pairs itself, as hsfob_db1(...) is; expected its pairs "
                "in its place: penalties=[*hsfob_db1(0.1), ...]"
            )
            raise ValueError(msg)
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            msg = (
                f"an entry of penalties is {entry!r}; expected a pair (strength, penalty), as in "
                "penalties=[(0.1, ...), ...]"
            )
            raise ValueError(msg)
        found.append((_strength(entry[0], entry[1]), made("penalty", entry[1], PENALTIES)))
    return found


def made_transforms(asked: object) -> tuple[Transform, ...]:
    """The transforms, made where they are asked for by name."""
    return tuple(made("transform", entry, TRANSFORMS) for entry in listed("transforms", asked, "transform"))


def made_constraints(asked: object) -> tuple[Constraint, ...]:
    """The constraints, made where they are asked for by name."""
    return tuple(made("constraint", entry, CONSTRAINTS) for entry in listed("constraints", asked, "constraint"))


def _strength(strength: object, penalty: object) -> float:
    """The strength as a number.

    Raises:
        ValueError: for what is none, is negative or not finite.
    """
    value = scalar(strength)
    if is_number(value) and 0 <= value < math.inf:
        return float(value)
    if is_number(penalty):
        msg = f"an entry of penalties is ({strength!r}, {penalty!r}); expected (strength, penalty), the other way round"
        raise ValueError(msg)
    name = described(made("penalty", penalty, PENALTIES), PENALTIES)["name"]
    msg = f"the strength of the penalty {name} is {strength!r}; expected a finite number, at least 0"
    raise ValueError(msg)


def listed(name: str, asked: object, entry: str) -> list[object]:
    """The parts that were asked for.

    Raises:
        ValueError: for one that stands alone, with the cure.
    """
    if isinstance(asked, Iterable) and not isinstance(asked, str | Mapping):
        return list(asked)
    if asked is None:
        cure = f"leave {name} out for none"
    elif name == "penalties" and getattr(asked, "__name__", "").startswith("hsfob_db"):
        cure = f"call it: penalties={getattr(asked, '__name__', '')}(...)"
    else:
        cure = f"{name}=[{entry}]"
    msg = f"{name} is {asked!r}; expected a list of {name}: {cure}"
    raise ValueError(msg)


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
