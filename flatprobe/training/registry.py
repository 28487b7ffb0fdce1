"""Penalties, transforms and constraints by name: from JSON to the object, and back for the record."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

from flatprobe.utils.arguments import one_of, scalar
from flatprobe.utils.fingerprint import fingerprint


def made(kind: str, asked: object, known: Mapping[str, Callable[..., Any]]) -> Any:
    """The part that was asked for: by its name, as `{"name": ..., argument: value}`, or the object itself.

    Args:
        kind: what it is, for messages.
        asked: a name, a mapping, or any callable.
        known: the parts by name.

    Returns:
        A callable.

    Raises:
        ValueError: for an unknown name, or none, with the known ones; for arguments that are not the part's own.
        TypeError: for something that cannot be called.
    """
    if isinstance(asked, str | Mapping):
        arguments = {"name": asked} if isinstance(asked, str) else dict(asked)
        if "name" not in arguments:
            msg = f'the {kind} {asked!r} has no "name"; expected one of {", ".join(map(repr, known))} under it'
            raise ValueError(msg)
        name = arguments.pop("name")
        one_of(f"the {kind}", name, known)
        own = known[str(name)]
        names = [entry.name for entry in fields(own) if entry.init] if is_dataclass(own) else []
        if not arguments.keys() <= set(names):
            expected = f"some of {', '.join(names)}" if names else "no arguments"
            msg = f"the {kind} {name!r} was given {', '.join(arguments)}; expected {expected}"
            raise ValueError(msg)
        try:
            return own(**arguments)
        except TypeError as error:
            msg = f"the {kind} {name!r} cannot be made from {arguments!r} ({error}); its arguments: {', '.join(names)}"
            raise ValueError(msg) from error
    if isinstance(asked, type) or not callable(asked):
        what = f"the class {asked.__name__}" if isinstance(asked, type) else f"a {type(asked).__name__}"
        msg = f"the {kind} is {what}; expected an object such as those of fp.{_HOME.get(kind, kind)}, or its name"
        raise TypeError(msg)
    _check_signature(kind, asked)
    return asked


def _check_signature(kind: str, part: Callable[..., Any]) -> None:
    """A caller's own part takes what it will be called with.

    Raises:
        TypeError: where it cannot be called so, with how.
    """
    count = 2 if kind == "constraint" else 1
    with suppress(ValueError):  # what Python knows no signature of
        own = signature(part)
        try:
            own.bind(*[None] * count)
        except TypeError as error:
            msg = (
                f"the {kind} {fingerprint(part)['name'].rpartition('.')[2]!r} takes {own} and would be called with "
                f"{count} argument{'s' * (count > 1)}; expected a function of {_FORMS.get(kind, 'one argument')}"
            )
            raise TypeError(msg) from error


_FORMS = {
    "penalty": "one fp.ForwardPass, which has .inputs, .labels and .logits",
    "transform": "one fp.ForwardPass, giving (inputs, labels): lambda passed: (passed.inputs + 0.1, passed.labels)",
    "constraint": "the network and its layers that changes the weights in place: lambda network, layers: ...",
}
_HOME = {"penalty": "penalties", "transform": "transforms", "constraint": "constraints"}


def described(part: object, known: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """What `made` makes the same part of; of a part that is the caller's own, what `fingerprint` says.

    A field that holds a part itself says by its metadata, `{"parts": known}`, among which it is known.
    """
    name = next((name for name, own in known.items() if type(part) is own), None)
    if name is None or not is_dataclass(part):
        return fingerprint(part)
    values = {
        entry.name: described(value, entry.metadata["parts"]) if "parts" in entry.metadata else _plain(value)
        for entry in fields(part)
        if entry.init
        for value in [getattr(part, entry.name)]
    }
    return {"name": name, **values}


def short_name(part: object, known: Mapping[str, Callable[..., Any]]) -> str:
    """Its name for messages and columns: without the module of a caller's own."""
    return str(described(part, known)["name"]).rpartition(".")[2]


def _plain(value: object) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else scalar(value)
