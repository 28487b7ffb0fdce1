"""Checked arguments of a training."""

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
from flatprobe.training.registry import build, describe
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
    """The arguments of `train` that determine its result, with penalties, transforms and constraints built.

    Raises:
        ValueError: for an argument out of its range.
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
    penalties: list[tuple[float, Penalty]] | Any
    transforms: tuple[Transform, ...] | Any
    constraints: tuple[Constraint, ...] | Any
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
            msg = f"momentum must be at least 0 and below 1, got {self.momentum!r}"
            raise ValueError(msg)
        if not is_number(self.weight_decay) or not 0 <= self.weight_decay < math.inf:
            msg = f"weight_decay must be a finite number, at least 0, got {self.weight_decay!r}"
            raise ValueError(msg)
        if (self.target_loss is None) == (self.until == "loss"):
            msg = (
                f"until is {self.until!r} and target_loss {self.target_loss}; expected a loss with until='loss', "
                "and none otherwise"
            )
            raise ValueError(msg)
        one_of("precision", self.precision, (None, "bfloat16"))
        object.__setattr__(self, "penalties", _build_penalties(self.penalties))
        for name, known in (("transform", TRANSFORMS), ("constraint", CONSTRAINTS)):
            built = (build(name, entry, known) for entry in as_list(f"{name}s", getattr(self, f"{name}s"), name))
            object.__setattr__(self, f"{name}s", tuple(built))
        object.__setattr__(self, "objective", as_loss(self.objective))
        per_sample_loss(self.objective)
        check_optimizer(self.optimizer, momentum=self.momentum)
        check_schedule(self.schedule, self.epochs)

    def as_json(self) -> dict[str, Any]:
        """All settings in JSON's types, where a tuple is a list, for a record and to compare with a record."""
        named = {
            "objective": describe_loss(self.objective),
            "optimizer": plain(self.optimizer),
            "schedule": None if self.schedule is None else plain(self.schedule),
        }
        parts = {
            "penalties": [[strength, describe(penalty, PENALTIES)] for strength, penalty in self.penalties],
            "transforms": [describe(part, TRANSFORMS) for part in self.transforms],
            "constraints": [describe(part, CONSTRAINTS) for part in self.constraints],
            "precision": self.precision,
        }
        plain_settings = {name: value for name, value in vars(self).items() if name not in parts}
        # Empty entries are left out, so that a plain training has a short record.
        used = {name: value for name, value in parts.items() if value}
        settings: dict[str, Any] = json.loads(json.dumps(plain_settings | named | used, default=as_json))
        return settings


def _build_penalties(given: object) -> list[tuple[float, Penalty]]:
    """The (strength, penalty) pairs, with penalties built from their names.

    Raises:
        ValueError: for anything but a list of pairs.
        ValueError: for a strength that is negative or not finite.
    """
    found: list[tuple[float, Penalty]] = []
    for entry in as_list("penalties", given, "(strength, penalty)"):
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
        found.append((_check_strength(entry[0], entry[1]), build("penalty", entry[1], PENALTIES)))
    return found


def _check_strength(strength: object, penalty: object) -> float:
    """The strength as a number.

    Raises:
        ValueError: for anything but a finite number of at least 0.
    """
    value = scalar(strength)
    if is_number(value) and 0 <= value < math.inf:
        return float(value)
    if is_number(penalty):
        msg = f"an entry of penalties is ({strength!r}, {penalty!r}); expected (strength, penalty), the other way round"
        raise ValueError(msg)
    name = describe(build("penalty", penalty, PENALTIES), PENALTIES)["name"]
    msg = f"the strength of the penalty {name} is {strength!r}; expected a finite number, at least 0"
    raise ValueError(msg)


def as_list(name: str, given: object, entry: str) -> list[object]:
    """The penalties, transforms or constraints as a list.

    Raises:
        ValueError: for anything but a list or another iterable.
    """
    if isinstance(given, Iterable) and not isinstance(given, str | Mapping):
        return list(given)
    if given is None:
        fix = f"leave {name} out for none"
    elif name == "penalties" and getattr(given, "__name__", "").startswith("hsfob_db"):
        fix = f"call it: penalties={getattr(given, '__name__', '')}(...)"
    else:
        fix = f"{name}=[{entry}]"
    msg = f"{name} is {given!r}; expected a list of {name}: {fix}"
    raise ValueError(msg)


def rule_met(settings: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """True if the stopping rule is met at the end of an epoch.

    Args:
        settings: `epochs`, `until` and `target_loss`, as in `Settings.as_json`.
        row: the epoch's row of the history.
    """
    if settings["until"] == "interpolation":
        return bool(row["train_accuracy"] == 1.0)
    if settings["until"] == "loss":
        return bool(row["train_loss"] <= settings["target_loss"])
    return bool(row["epoch"] == settings["epochs"])
