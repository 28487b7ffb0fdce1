"""Inert stand-ins for the objects in a pickle, so that weights beside them can be read without their code."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

CLASS = "__flatprobe_class__"  # attribute of a stand-in with the name of the class that it stands for
_MOST = 200  # names of classes in one file; torch compares each with all others
_DEPTH = 6

# Constructors whose pickles call them. Anything else that a pickle calls is taken for code.
_VALUES = {
    "builtins.frozenset", "builtins.range", "builtins.slice", "collections.defaultdict", "datetime.date",
    "datetime.datetime", "datetime.timedelta", "functools.partial",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy.dtype", "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath",
    "pathlib.WindowsPath", "pathlib.PureWindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "uuid.UUID",
}  # fmt: skip


class _Inert(type):
    """The class of classes that stand for others."""

    def __call__(cls, *_args: object) -> Any:
        """A value without content for a known constructor.

        Raises:
            UnpicklingError: for anything else, which the pickle would call.
        """
        name = vars(cls)[CLASS]
        if name not in _VALUES:
            msg = f"it calls {name}"
            raise pickle.UnpicklingError(msg)
        own: Any = cls
        return own.__new__(own) if name == "collections.defaultdict" else object.__new__(own)  # the one with entries


class _Object(metaclass=_Inert):
    def __new__(cls, *_args: object) -> Any:
        """A dictionary with the object's entries, if it is one, and with the attributes that the pickle sets."""
        made: OrderedDict[object, object] = OrderedDict()  # the one type whose entries and attributes torch sets
        setattr(made, CLASS, vars(cls)[CLASS])
        return made

    def __setstate__(self, state: object) -> None:
        """Nothing: the state of a value is not needed."""


def placeholders(names: Iterable[str]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """A stand-in for each name of a class or function, for `torch.serialization.safe_globals`.

    Nothing is imported. torch looks for its own names first, and for these after them.

    Raises:
        UnpicklingError: for more names than any checkpoint has.
    """
    different = sorted({name.replace("__builtin__.", "builtins.", 1) for name in names})  # as torch translates them
    if len(different) > _MOST:
        msg = f"it names {len(different)} classes and functions"
        raise pickle.UnpicklingError(msg)
    return [(_Inert("Inert", (_Object,), {CLASS: name}), name) for name in different]


def class_of(value: object) -> str | None:
    """The name of the class for which a value stands; None for a value that is itself.

    >>> [(stand_in, _)] = placeholders(["argparse.Namespace"])
    >>> class_of(stand_in.__new__(stand_in)), class_of(3)
    ('argparse.Namespace', None)
    """
    name = getattr(value, CLASS, None)
    return name if isinstance(name, str) else None


def stand_ins(content: object, depth: int = _DEPTH) -> dict[str, str]:
    """Place -> class of the objects in nested dictionaries, such as `{"args": "argparse.Namespace"}`."""
    found: dict[str, str] = {}
    if isinstance(content, Mapping) and depth:
        for key, value in content.items():
            if (name := class_of(value)) is not None:
                found[str(key)] = name
            elif isinstance(value, Mapping):
                found |= {f"{key}.{inner}": name for inner, name in stand_ins(value, depth - 1).items()}
    return found
