"""Checks of arguments, with common messages, and their annotations."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union

# A variant of something: its name, or a mapping of its name and its arguments.
Named = str | Mapping[str, object]

# Losses by the names that other libraries give them, without spaces, dashes and "loss".
_USUAL = {
    **dict.fromkeys(("mse", "l2", "meansquarederror"), "squared_error"),
    **dict.fromkeys(("mae", "l1", "meanabsoluteerror"), "absolute_error"),
    **dict.fromkeys(("ce", "nll", "xent", "log", "crossentropy"), "cross_entropy"),
    **dict.fromkeys(("bce", "bcewithlogits"), "binary_cross_entropy"),
}

T = TypeVar("T")
if TYPE_CHECKING:
    Checked = Annotated[T, "checked at run time by flatprobe itself"]
else:

    class Checked:
        """`Checked[kind]` annotates an argument that flatprobe checks itself, such as `Checked[Literal["l2", "linf"]]`.

        A type checker reads the kind. At run time anything passes, so that a wrong argument meets flatprobe's message
        and not that of an annotation checker.
        """

        def __class_getitem__(cls, kind: object) -> object:
            return Union[kind, Any]  # noqa: UP007 - `|` does not take every kind


Number = Checked[float]
Whole = Checked[int]
Flag = Checked[bool]
# A number, or a sequence, an array or a tensor of numbers.
Numbers = Checked[float | Iterable[float]]
# Of parameters: None for all, "last", or names or patterns.
Selection = Checked[str | Sequence[str] | None]


def as_json(value: Any) -> Any:
    """The Python number of a NumPy or torch scalar: the `default` of json.dumps.

    Raises:
        TypeError: for any other value.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    msg = f"Object of type {type(value).__name__} is not JSON serializable"
    raise TypeError(msg)


def one_of(name: str, value: object, options: Iterable[object]) -> None:
    """Check that an argument is one of the options.

    Raises:
        ValueError: if it is not; the message lists the options.
    """
    allowed = list(options)
    if value not in allowed:
        msg = f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}{meant(value, allowed)}"
        raise ValueError(msg)


def meant(value: object, options: Iterable[object]) -> str:
    """The option that a wrong word is closest to, as a question; empty if none is close.

    >>> meant("flatnes_radius", ["flatness_radius", "scores"])
    ". Did you mean 'flatness_radius'?"
    """
    words = [own for own in options if isinstance(own, str)]
    if not isinstance(value, str):
        return ""
    usual = _USUAL.get(re.sub(r"[^a-z0-9]", "", value.lower().removesuffix("loss")))
    found = [usual] if usual in words else get_close_matches(value.lower(), words, 1)
    return f". Did you mean {found[0]!r}?" if found else ""


def chosen(
    kind: str, asked: Named | Any, options: Mapping[str, Callable[..., Any]]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The option given by its name, or as `{"name": ..., argument: value}`, and its arguments.

    The arguments of an option are its keyword-only parameters, which must be finite numbers.

    Returns:
        The option, and the arguments for its call.

    Raises:
        TypeError: for neither a name nor such a mapping; the message lists the options.
        ValueError: for an unknown name; the message lists the options.
        ValueError: for arguments that the option does not take or lacks, or one that is not a finite number.

    >>> def power(x: float, *, exponent: float) -> float:
    ...     return x**exponent
    >>> option, arguments = chosen("map", {"name": "power", "exponent": 3.0}, {"power": power})
    >>> option(2.0, **arguments)
    8.0
    """
    if not isinstance(asked, str | Mapping):
        name = asked.__name__ if isinstance(asked, type) else ""
        got = f"the class {name}" if name else repr(asked)
        fix = f". Give {kind}={name.lower()!r}" if name.lower() in options else ""
        names = ", ".join(map(repr, options))
        msg = f"the {kind} must be one of {names}, or {{'name': one of them, argument: value}}, got {got}{fix}"
        raise TypeError(msg)
    arguments: dict[str, Any] = {"name": asked} if isinstance(asked, str) else dict(asked)
    name = arguments.pop("name", None)
    one_of(kind, name, options)
    own = _keyword_only(options[name])
    known = {value.name for value in own}
    needed = {value.name for value in own if value.default is Parameter.empty}
    if not needed <= arguments.keys() <= known:
        expected = {"name": name} | {value.name: "..." for value in own}
        msg = f"{kind} is {asked!r}; expected {expected if own else repr(name)}" + (
            f", of which {', '.join(sorted(known - needed))} may be left out" if needed < known else ""
        )
        raise ValueError(msg)
    for word, value in arguments.items():
        value = arguments[word] = scalar(value)
        if not isinstance(value, int | float) or not math.isfinite(value):
            msg = f"{word} of the {kind} {name!r} must be a finite number, got {value!r}"
            raise ValueError(msg)
    return options[name], arguments


@cache  # a training calls this in every step
def _keyword_only(function: Callable[..., Any]) -> list[Parameter]:
    return [value for value in signature(function).parameters.values() if value.kind is Parameter.KEYWORD_ONLY]


def plain(asked: Named) -> Named:
    """A named option as the settings hold it: the name, or a dictionary of Python numbers."""
    if isinstance(asked, str):
        return asked
    return {word: scalar(value) for word, value in asked.items()}


def scalar(value: object) -> Any:
    """The Python number of a NumPy or torch scalar; any other value unchanged."""
    return as_json(value) if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def numbers(**values: object) -> list[float]:
    """The one argument, a number or several numbers, as a list.

    Raises:
        ValueError: for any other value.
    """
    ((name, value),) = values.items()
    try:
        return [float(scalar(value))] if is_number(value) else [float(own) for own in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        msg = f"{name} must be a number, or several, got {value!r}"
        raise ValueError(msg) from None


def is_number(value: object) -> bool:
    """True for a real number; False for words and booleans."""
    own = scalar(value)
    return isinstance(own, int | float) and not isinstance(own, bool)


def is_whole(value: object) -> bool:
    """True for an integer; False for 2.0 and booleans."""
    own = scalar(value)
    return isinstance(own, int) and not isinstance(own, bool)


def flag(**values: object) -> None:
    """Check that the arguments are True or False, since a word such as "no" counts as True in Python.

    Raises:
        ValueError: for the first argument that is not.
    """
    for name, value in values.items():
        one_of(name, scalar(value), (True, False))


def given(**values: object) -> None:
    """Check that no argument is None; `positive` and `at_least` let None pass.

    Raises:
        ValueError: for the first argument that is None.
    """
    for name, value in values.items():
        if value is None:
            msg = f"{name} must be a number, got None"
            raise ValueError(msg)


def whole(**values: object) -> None:
    """Check that the arguments are integers.

    Raises:
        ValueError: for the first argument that is not.
    """
    for name, value in values.items():
        if not is_whole(value):
            msg = f"{name} must be a whole number, got {value!r}"
            raise ValueError(msg)


def positive(**values: object) -> None:
    """Check that the arguments are positive finite numbers, or None.

    Raises:
        ValueError: for the first argument that is not.
    """
    for name, value in values.items():
        if value is not None and not (is_number(value) and 0 < scalar(value) < math.inf):
            msg = f"{name} must be a positive finite number, got {_shown(value)}"
            raise ValueError(msg)


def at_least(least: int, **values: object) -> None:
    """Check that the arguments are integers, at least `least`, or None.

    Raises:
        ValueError: for the first argument that is not.
    """
    for name, value in values.items():
        if value is not None and not is_whole(value):
            msg = f"{name} must be a whole number, at least {least}, got {_shown(value)}"
            raise ValueError(msg)
        if value is not None and scalar(value) < least:
            msg = f"{name} must be at least {least}, got {value}"
            raise ValueError(msg)


def _shown(value: object) -> str:
    return str(value) if is_number(value) else repr(value)
