"""The notebooks: their cells run on fewer samples, and the .ipynb files hold the cells of their Markdown pairs."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
notebooks = pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.stem)


def cells(page: Path) -> list[str]:
    return re.findall(r"```\{code-cell\} ipython3\n(.*?)\n```", page.read_text(), flags=re.DOTALL)


@notebooks
def test_the_cells_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    names: dict[str, Any] = {}
    assert len(cells(page)) > 5
    for cell in cells(page):
        quick = re.sub(r"limit=\d+", "limit=60", re.sub(r"^%.*", "", cell, flags=re.MULTILINE))
        quick = quick.replace("target_loss=0.02", "target_loss=0.2")
        exec(compile(quick, page.name, "exec"), names)
    plt.close("all")


@notebooks
def test_the_notebook_is_that_of_its_page(page: Path) -> None:
    notebook = json.loads(page.with_suffix(".ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]) for cell in code] == cells(page), "run python docs/notebooks/execute.py"
    assert all(cell["outputs"] for cell in code if "draw" in "".join(cell["source"]))
    assert page.with_suffix(".ipynb").stat().st_size < 300_000
