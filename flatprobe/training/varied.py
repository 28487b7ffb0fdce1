"""What a tuning varies, how far and how often."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from flatprobe.checks import as_json

NUMBERS = ("weight_decay", "learning_rate", "momentum")


def varying(
    setting: str | Callable[[float], Mapping[str, Any]] | None, penalty: object, others: Mapping[str, Any]
) -> Callable[[float], dict[str, Any]]:
    """The arguments of `train` as a function of the strength.

    Raises:
        ValueError: unless there is one thing to vary, and it is not fixed as well.
    """
    if (setting is None) == (penalty is None):
        msg = f"setting is {setting!r} and penalty {penalty!r}; expected one of them: what the strength is of"
        raise ValueError(msg)
    if penalty is not None:
        own = list(others.get("penalties", ()))
        return lambda strength: {"penalties": [*own, *([(strength, penalty)] if strength else [])]}
    if not isinstance(setting, str):
        return partial(_arguments, setting)
    if setting not in NUMBERS or setting in others:
        msg = (
            f"setting is {setting!r}"
            + (f", which is {others[setting]!r} as well" if setting in others else "")
            + f"; expected one of {', '.join(NUMBERS)}, not given otherwise, or a function strength -> arguments"
        )
        raise ValueError(msg)
    return lambda strength: {setting: strength}


def _arguments(setting: Any, strength: float) -> dict[str, Any]:
    """What the caller's function says.

    Raises:
        ValueError: if that is no dictionary.
    """
    arguments = setting(strength)
    if not isinstance(arguments, Mapping):
        msg = (
            f"setting({strength}) is a {type(arguments).__name__}; expected a dict of arguments of train: a penalty "
            "goes into penalty=..."
        )
        raise ValueError(msg)
    return dict(arguments)


def without_seed(others: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that go to every training as they are.

    Raises:
        ValueError: for a seed.
    """
    if "seed" in others:
        msg = f"seed is {others['seed']!r}; expected seeds=(...), one repetition each"
        raise ValueError(msg)
    once = {"penalties", "transforms", "constraints"}  # iterables, which could be used up after the first training
    return {name: list(value) if name in once else value for name, value in others.items()}


def grid(strengths: Iterable[float]) -> list[float]:
    """The strengths from small to large.

    Raises:
        ValueError: if they are not at least two different numbers, finite and not negative.
    """
    values = [float(strength) for strength in strengths]
    if len({*values}) < max(2, len(values)) or not all(0 <= strength < math.inf for strength in values):
        msg = f"strengths are {values}; expected at least two different ones, each finite and at least 0"
        raise ValueError(msg)
    return sorted(values)


def distinct(seeds: Iterable[int]) -> list[int]:
    """The seeds as they were given.

    Raises:
        ValueError: if there are none, or one comes twice.
    """
    repetitions = [as_json(seed) if hasattr(seed, "item") else seed for seed in seeds]
    if not repetitions or len({*repetitions}) < len(repetitions):
        msg = (
            f"seeds are {repetitions}; expected at least one, and different ones: the same seed gives the same training"
        )
        raise ValueError(msg)
    return repetitions
