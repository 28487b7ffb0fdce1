"""Checks of arguments, with one wording for all."""

from collections.abc import Iterable
from typing import Any


def as_json(value: Any) -> Any:
    """NumPy's and torch's scalars as Python's: the `default` of json.dumps.

    Raises:
        TypeError: for anything else.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    msg = f"Object of type {type(value).__name__} is not JSON serializable"
    raise TypeError(msg)


def one_of(name: str, value: object, options: Iterable[object]) -> None:
    """The argument is one of the options.

    Raises:
        ValueError: where it is not, with the options.
    """
    allowed = list(options)
    if value not in allowed:
        msg = f"{name} is {value!r}; expected one of {', '.join(map(repr, allowed))}"
        raise ValueError(msg)


def positive(**values: float | None) -> None:
    """The arguments are positive and finite; None passes.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            msg = f"{name} is {value}; expected a positive finite number"
            raise ValueError(msg)


def at_least(least: int, **values: int | None) -> None:
    """The arguments are at least `least`; None passes.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in values.items():
        if value is not None and value < least:
            msg = f"{name} is {value}; expected at least {least}"
            raise ValueError(msg)
