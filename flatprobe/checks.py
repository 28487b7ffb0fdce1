"""Checks of arguments, with one wording for all."""

import math
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any

# A variant of something, asked for by its name, or by its name with its arguments.
Named = str | Mapping[str, object]


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


def chosen(
    kind: str, asked: Named, options: Mapping[str, Callable[..., Any]]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The option that was asked for by name, or as `{"name": ..., argument: value}`, and its arguments.

    An option's arguments are its keyword-only parameters, finite numbers.

    Returns:
        The option, and the arguments to call it with.

    Raises:
        ValueError: for an unknown name, with the options; for arguments that are not the option's own, with those; for
            one that is no finite number.

    >>> def power(x: float, *, exponent: float) -> float:
    ...     return x**exponent
    >>> option, arguments = chosen("map", {"name": "power", "exponent": 3.0}, {"power": power})
    >>> option(2.0, **arguments)
    8.0
    """
    arguments: dict[str, Any] = {"name": asked} if isinstance(asked, str) else dict(asked)
    name = arguments.pop("name", None)
    one_of(kind, name, options)
    own = [value for value in signature(options[name]).parameters.values() if value.kind is Parameter.KEYWORD_ONLY]
    known = {value.name for value in own}
    needed = {value.name for value in own if value.default is Parameter.empty}
    if not needed <= arguments.keys() <= known:
        expected = {"name": name} | {value.name: "..." for value in own}
        msg = f"{kind} is {asked!r}; expected {expected if own else repr(name)}" + (
            f", of which {', '.join(sorted(known - needed))} may be left out" if needed < known else ""
        )
        raise ValueError(msg)
    for word, value in arguments.items():
        arguments[word] = as_json(value) if hasattr(value, "item") else value
        if not isinstance(value := arguments[word], int | float) or not math.isfinite(value):
            msg = f"{word} of the {kind} {name!r} is {value!r}; expected a finite number"
            raise ValueError(msg)
    return options[name], arguments


def plain(asked: Named) -> Named:
    """The same as a record has it: a dictionary of Python's numbers for any mapping."""
    if isinstance(asked, str):
        return asked
    return {word: as_json(value) if hasattr(value, "item") else value for word, value in asked.items()}


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
