"""Functions of modules and files by name: found, called, and refused with the option's name."""

import sys
from pathlib import Path

import pytest

from flatprobe.utils.references import call, resolve

SOURCE = """
calls = []
calls.append(1)
number = 3
class Net:
    depth = 2
    @staticmethod
    def build(width=1):
        return width
def fails(): raise KeyError("mine")
def needs(width, *, depth=1): return width * depth
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    (tmp_path / "sub").mkdir()
    for name in ("own_things.py", "sub/own_things.py", "json.py"):
        (tmp_path / name).write_text(SOURCE)
    return tmp_path


def test_modules_and_files_of_the_current_folder_and_dotted_names(folder: Path) -> None:
    assert resolve("own_things:number", "--x") == 3
    assert resolve("own_things.py:Net.depth", "--x") == 2
    assert resolve(f"{folder}/own_things.py:number", "--x") == 3
    assert resolve("math:sqrt", "--x")(4) == 2
    assert call("own_things.py:Net.build", "--x", {"width": 5}) == 5


def test_a_file_runs_once_and_two_of_one_name_stay_two() -> None:
    first, second = (resolve(f"{place}own_things.py:Net", "--x") for place in ("", "sub/"))
    assert first is not second
    assert resolve("own_things.py:Net", "--x") is first
    assert resolve("own_things.py:calls", "--x") == [1]


def test_a_file_with_the_name_of_a_module_of_python_is_the_file() -> None:
    import json

    assert resolve("json.py:number", "--x") == 3
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("own_things", r"--x must be package\.module:name or path/to/file\.py:name, got 'own_things'"),
        ("own_things:a b", r"--x must be package\.module:name"),
        (":f", r"--x must be package\.module:name"),
        ("own_things.py:nope", r"--x must name something in own_things\.py.* has no nope.*: Net, fails, needs"),
        ("own_things.py:Net.nope", r"own_things\.py:Net has no nope.*: build"),
        ("nowhere.py:f", "--x must name a module that can be imported, got 'nowhere.py', which raised FileNotFound"),
        ("nowhere:f", "'nowhere', which raised ModuleNotFoundError: No module named 'nowhere'"),
        ("own_things.py:number", "--x must name a function or class, got .*, which is an object of type int"),
        ("own_things.py:needs", r"takes no arguments, got .* needs\(width, \*, depth=1\): missing a required"),
        ("own_things.py:fails", "which raised KeyError: 'mine'. Correct the function or its arguments"),
    ],
)
def test_errors_name_the_option_and_the_cure(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(reference, "--x", {})


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"takes the arguments width, deep, got .*: got an unexpected keyword .*deep"):
        call("own_things.py:needs", "--x", {"width": 1, "deep": 2})
    assert call("own_things.py:needs", "--x", {"width": 2, "depth": 3}) == 6


def test_a_file_that_fails_is_tried_again(folder: Path) -> None:
    (folder / "late.py").write_text("1 / 0")
    with pytest.raises(ValueError, match="which raised ZeroDivisionError"):
        resolve("late.py:number", "--x")
    (folder / "late.py").write_text("number = 4")
    assert resolve("late.py:number", "--x") == 4
