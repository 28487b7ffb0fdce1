"""What a tuning varies, how far and how often."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from flatprobe.training.settings import listed
from flatprobe.utils.arguments import is_number, is_whole, scalar

NUMBERS = ("weight_decay", "learning_rate", "momentum")
# What tune gives to each training itself.
_OWN = frozenset(("network", "data", "validation", "out", "seed"))


def varying(
    setting: str | Callable[[float], Mapping[str, Any]] | Any | None, penalty: object, others: Mapping[str, Any]
) -> Callable[[float], dict[str, Any]]:
    """The arguments of `train` as a function of the strength.

    Raises:
        ValueError: unless there is one thing to vary, and it is not fixed as well.
    """
    if (setting is None) == (penalty is None):
        msg = f"setting is {setting!r} and penalty {penalty!r}; expected one of them: what the strength is of"
        raise ValueError(msg)
    if penalty is not None:
        own = listed("penalties", others.get("penalties", ()), "(strength, penalty)")
        return lambda strength: {"penalties": [*own, *([(strength, penalty)] if strength else [])]}
    if callable(setting):
        return partial(_arguments, setting, others)
    if not isinstance(setting, str) or setting not in NUMBERS or setting in others:
        msg = (
            f"setting is {setting!r}"
            + (f", which is {others[str(setting)]!r} as well" if setting in others else "")
            + f"; expected one of {', '.join(NUMBERS)}, not given otherwise, or a function strength -> arguments"
        )
        raise ValueError(msg)
    return lambda strength: {setting: strength}


def _arguments(setting: Any, others: Mapping[str, Any], strength: float) -> dict[str, Any]:
    """What the caller's function says.

    Raises:
        ValueError: if that is no dictionary, or has an argument that is given otherwise.
    """
    arguments = setting(strength)
    if not isinstance(arguments, Mapping):
        msg = (
            f"setting({strength}) is a {type(arguments).__name__}; expected a dict of arguments of train: a penalty "
            "goes into penalty=..."
        )
        raise ValueError(msg)
    if twice := sorted(arguments.keys() & others.keys()):
        msg = f"setting({strength}) gives {', '.join(twice)}, and so does the call; expected each of them once"
        raise ValueError(msg)
    if own := sorted(arguments.keys() & _OWN):
        msg = f"setting({strength}) gives {', '.join(own)}, which tune gives itself; expected other arguments of train"
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
    return {
        # What is no list is refused with the settings.
        name: list(value)
        if name in once and isinstance(value, Iterable) and not isinstance(value, str | Mapping)
        else value
        for name, value in others.items()
    }


def grid(strengths: Iterable[float] | Any) -> list[float]:
    """The strengths from small to large.

    Raises:
        ValueError: if they are not at least two different numbers, finite and not negative.
    """
    asked = _several("strengths", strengths)
    if not all(map(is_number, asked)):
        msg = f"strengths are {asked}; expected numbers"
        raise ValueError(msg)
    values = [float(strength) for strength in asked]
    if len({*values}) < max(2, len(values)) or not all(0 <= strength < math.inf for strength in values):
        msg = f"strengths are {values}; expected at least two different ones, each finite and at least 0"
        raise ValueError(msg)
    return sorted(values)


def distinct(seeds: Iterable[int] | Any) -> list[int]:
    """The seeds as they were given.

    Raises:
        ValueError: if there are none, or one comes twice.
    """
    repetitions = [scalar(seed) for seed in _several("seeds", seeds)]
    if not all(map(is_whole, repetitions)):
        msg = f"seeds are {repetitions}; expected whole numbers"
        raise ValueError(msg)
    if not repetitions or len({*repetitions}) < len(repetitions):
        msg = (
            f"seeds are {repetitions}; expected at least one, and different ones: the same seed gives the same training"
        )
        raise ValueError(msg)
    return repetitions


def _several(name: str, asked: object) -> list[Any]:
    """What was given as a list.

    Raises:
        ValueError: for a single one, or a word.
    """
    if isinstance(asked, str) or not hasattr(asked, "__iter__") or getattr(asked, "ndim", 1) == 0:
        msg = f"{name} is {asked!r}; expected a list of numbers, such as {name}=(0, 1)"
        raise ValueError(msg)
    assert isinstance(asked, Iterable)
    return list(asked)
