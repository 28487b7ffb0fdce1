"""The example of the page on reproducing a figure: written as the page says, run at its quick preset, and drawn."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from analyses.__main__ import run
from analyses.record import read_record
from analyses.reproduction import DIRECTION
from analyses.study import Study
from flatprobe.plotting import canvas

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "reproduce-a-figure.md"
FILES = dict(re.findall(r"```\{code-block\} python\n:caption: (\S+)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))


def load(name: str, folder: Path) -> ModuleType:
    path = folder / name.replace("/", "_")
    path.write_text(FILES[name])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_runs_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = load("analyses/zhang2017/figure1b.py", tmp_path).REPRODUCTION
    run(item, "quick", Study(root=tmp_path / "runs"), tmp_path)
    frame, metadata = read_record(item.id, "quick", tmp_path)
    assert len(frame) == 10
    assert metadata["verdict"] == DIRECTION
    assert "the time grows with the fraction" in capsys.readouterr().out
    draw = load("figures/items/zhang2017.py", tmp_path).FIGURES[item.id]
    assert canvas.png(draw(frame, metadata)).startswith(b"\x89PNG")


def test_the_example_is_as_short_as_the_page_says_closed_form() -> None:
    assert list(FILES) == ["analyses/zhang2017/figure1b.py", "figures/items/zhang2017.py"]
    lines = sum(bool(line.strip()) for text in FILES.values() for line in text.splitlines())
    assert 40 <= lines <= 80
