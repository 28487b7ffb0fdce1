"""The commands and links of README, of Getting started and of the How-to pages; their Python runs as doctests."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch

from flatprobe.cli import main
from flatprobe.utils.references import call
from tests.helpers import wheels

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "getting-started.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
NUMBER = r"\d+(?:\.\d+)?"
SHOWN = re.compile(r"```text\n(.*?)```", flags=re.DOTALL)  # what the commands print
CAPTIONED = re.compile(r"```\{code-block\} (?:python|json)\n:caption: (\S+)\n(.*?)```", flags=re.DOTALL)


def commands(page: Path, program: str) -> list[list[str]]:
    """The lines of the page's `sh` blocks that start this program."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text().replace("\\\n", " "), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


def alike(line: str, printed: str) -> bool:
    """True if both lines have the same words, and numbers that agree to 10 %."""
    numbers = [[float(number) for number in re.findall(NUMBER, text)] for text in (line, printed)]
    return re.sub(NUMBER, "#", line) == re.sub(NUMBER, "#", printed) and numbers[0] == pytest.approx(
        numbers[1], rel=0.1
    )


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder: the files that README and some pages show, and README's checkpoints."""
    for page in ("own-data", "sweep", "compare"):
        for name, text in CAPTIONED.findall((ROOT / "docs" / "how-to" / f"{page}.md").read_text()):
            (tmp_path / name).write_text(text)
    [source] = re.findall(r"`(import torch.nn as nn; build = [^`]*)`", (ROOT / "README.md").read_text())
    (tmp_path / "net.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    for name in (".", "run_a", "run_b"):  # README's model.pt lies in the folder itself
        Path(name).mkdir(exist_ok=True)
        torch.save(call("net.py:build", "--model", {}).state_dict(), f"{name}/model.pt")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page, "flatprobe")], ids=lambda page: page.stem)
def test_the_commands_work_and_print_what_the_page_shows(
    reader: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if page.stem == "foreign-checkpoint":
        wheels.foreign_page(page, reader)
    for _, *words in commands(page, "flatprobe"):
        with pytest.raises(SystemExit) as done:
            main(words)
        assert done.value.code in {0, None}, words
    if any(words[1] == "report" for words in commands(page, "flatprobe")):
        assert "flatprobe" in (reader / "report.html").read_text()
    printed = capsys.readouterr().out.splitlines()
    for line in "".join(SHOWN.findall(page.read_text())).splitlines():
        assert any(alike(line, other) for other in printed), line


@pages
def test_modules_and_make_targets_exist(page: Path) -> None:
    for words in commands(page, "python"):
        assert importlib.util.find_spec(words[2]) is not None
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), flags=re.MULTILINE)) <= {*targets}


@pages
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_the_readme_fits_one_screen() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    assert len(text.encode()) <= 8000


def test_each_how_to_page_is_in_the_index() -> None:
    folder = ROOT / "docs" / "how-to"
    listed = re.findall(r"\]\(([a-z-]+)\.md\)", (folder / "index.md").read_text())
    tree = (folder / "index.md").read_text().split(":hidden:")[1].split("```")[0].split()
    assert listed == tree
    assert {*listed} == {page.stem for page in folder.glob("*.md")} - {"index"}
