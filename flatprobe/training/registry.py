"""Registries of penalties, transforms and constraints: objects from names and JSON, and back for the record."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

from flatprobe.utils.arguments import one_of, scalar
from flatprobe.utils.fingerprint import fingerprint


def build(kind: str, given: object, registry: Mapping[str, Callable[..., Any]]) -> Any:
    """A penalty, transform or constraint from its name, from `{"name": ..., argument: value}`, or from itself.

    Args:
        kind: `"penalty"`, `"transform"` or `"constraint"`.
        given: a name, a mapping, or any callable.
        registry: the classes by name.

    Returns:
        A callable.

    Raises:
        ValueError: for a name that is unknown or missing.
        ValueError: for arguments that the class does not have.
        TypeError: for something that cannot be called, or takes other arguments.
    """
    if isinstance(given, str | Mapping):
        arguments = {"name": given} if isinstance(given, str) else dict(given)
        if "name" not in arguments:
            msg = f'the {kind} {given!r} has no "name"; expected one of {", ".join(map(repr, registry))} under it'
            raise ValueError(msg)
        name = arguments.pop("name")
        one_of(f"the {kind}", name, registry)
        chosen = registry[str(name)]
        names = [entry.name for entry in fields(chosen) if entry.init] if is_dataclass(chosen) else []
        if not arguments.keys() <= set(names):
            expected = f"some of {', '.join(names)}" if names else "no arguments"
            msg = f"the {kind} {name!r} was given {', '.join(arguments)}; expected {expected}"
            raise ValueError(msg)
        try:
            return chosen(**arguments)
        except TypeError as error:
            msg = f"the {kind} {name!r} cannot be made from {arguments!r} ({error}); its arguments: {', '.join(names)}"
            raise ValueError(msg) from error
    if isinstance(given, type) or not callable(given):
        what = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
        msg = f"the {kind} is {what}; expected an object such as those of fp.{_HOME.get(kind, kind)}, or its name"
        raise TypeError(msg)
    _check_signature(kind, given)
    return given


def _check_signature(kind: str, part: Callable[..., Any]) -> None:
    """Check that a user-defined part takes the arguments of its calls.

    Raises:
        TypeError: if its signature does not fit.
    """
    count = 2 if kind == "constraint" else 1
    with suppress(ValueError):  # Python knows no signature of some built-in functions.
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


def describe(part: object, registry: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """The description from which `build` builds an equal part; of a user-defined part, its fingerprint.

    A field that holds a part names the part's registry in its metadata, `{"registry": ...}`.
    """
    name = next((name for name, known in registry.items() if type(part) is known), None)
    if name is None or not is_dataclass(part):
        return fingerprint(part)
    values = {
        entry.name: describe(value, entry.metadata["registry"]) if "registry" in entry.metadata else _plain(value)
        for entry in fields(part)
        if entry.init
        for value in [getattr(part, entry.name)]
    }
    return {"name": name, **values}


def short_name(part: object, registry: Mapping[str, Callable[..., Any]]) -> str:
    """The name for messages and columns, without the module of a user-defined part."""
    return str(describe(part, registry)["name"]).rpartition(".")[2]


def _plain(value: object) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else scalar(value)
