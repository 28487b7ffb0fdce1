"""Objects beside the weights: read as stand-ins, and nothing of theirs is imported or called."""

import argparse
import collections
import dataclasses
import datetime
import functools
import pathlib
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from flatprobe.utils.contents import read_contents
from flatprobe.utils.pickles import unpickle
from flatprobe.utils.placeholders import class_of, placeholders, stand_ins


class Settings(dict[str, Any]):
    pass


class Record:
    def __init__(self) -> None:
        self.lr = 0.1


HARMLESS = {
    "argparse.Namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("x"), made=datetime.date(2026, 1, 1)),
    "tests.utils.test_placeholders.Settings": Settings(lr=0.1),
    "tests.utils.test_placeholders.Record": Record(),
    "collections.defaultdict": collections.defaultdict(list, a=[1]),
    "functools.partial": functools.partial(max, 3),
    "pathlib": pathlib.Path("a"),
    "numpy": np.float32(3),
    "builtins.slice": slice(1, 2),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_objects_leave_the_weights_readable(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "x": HARMLESS[name], "epoch": 3}, tmp_path / "a.pt")
    contents = read_contents(tmp_path / "a.pt")
    assert torch.equal(contents.states["state_dict"]["w"], torch.ones(2))
    assert contents.beside["x"].startswith(name.partition(".")[0] if name in {"numpy", "pathlib"} else name)


@dataclasses.dataclass(slots=True)
class Slots:
    lr: float = 0.1


def test_objects_that_cannot_be_left_out_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "x": Slots()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"Or its objects cannot be left out .*Slots.*these three lines"):
        read_contents(tmp_path / "a.pt")


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_module_of_somebody")
    thing = type("Thing", (), {"__module__": module.__name__, "__qualname__": "Thing"})
    module.Thing = thing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"state_dict": {"w": torch.ones(2)}, "x": thing()}, tmp_path / "a.pt")
    monkeypatch.delitem(sys.modules, module.__name__)
    assert stand_ins(unpickle(tmp_path / "a.pt")) == {"x": "a_module_of_somebody.Thing"}
    assert module.__name__ not in sys.modules


def test_the_marks_of_torch_are_as_before(tmp_path: Path) -> None:
    before = {*torch.serialization.get_safe_globals()}
    torch.save({"w": torch.ones(2), "x": argparse.Namespace(a=1)}, tmp_path / "a.pt")
    assert class_of(unpickle(tmp_path / "a.pt")["x"]) == "argparse.Namespace"  # type: ignore[index]
    assert {*torch.serialization.get_safe_globals()} == before
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(tmp_path / "a.pt", weights_only=True)


def test_a_call_of_anything_else_is_code() -> None:
    [(stand_in, name)] = placeholders(["os.path.join"])
    assert name == "os.path.join"
    with pytest.raises(pickle.UnpicklingError, match=r"it calls os\.path\.join"):
        stand_in("a", "b")
    with pytest.raises(pickle.UnpicklingError, match="it names 201 classes and functions"):
        placeholders(f"a.B{k}" for k in range(201))
