"""Name spaces: what `dir` and completion show is public, and `python -m flatprobe` runs."""

import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest

import flatprobe as fp

ROOMS = ("models", "penalties", "bounds", "callbacks", "transforms", "constraints")


def test_the_package_shows_its_public_names_alone() -> None:
    _ = fp.flatness_radius, fp.models  # imported names stay in the module
    assert {name for name in dir(fp) if not name.startswith("__")} == {*fp.__all__}


@pytest.mark.parametrize("room", ROOMS)
def test_the_public_modules_show_their_public_names_alone(room: str) -> None:
    module = getattr(fp, room)
    assert dir(module) == sorted(module.__all__)
    for name in dir(module):
        assert getattr(module, name, None) is not None or importlib.util.find_spec(f"{module.__name__}.{name}")


def test_the_package_runs_as_a_module() -> None:
    found = subprocess.run([sys.executable, "-m", "flatprobe", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == importlib.metadata.version("flatprobe")
