"""The README's commands, run as they stand (its Python runs as a doctest)."""

import re
import shlex
from pathlib import Path

import pytest

import flatprobe as fp
from flatprobe.cli import main

README = Path(__file__).parents[1] / "README.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("flatprobe ")]


def words(text: str) -> list[str]:
    """The text without its numbers, which depend on the machine, and without lines and spaces."""
    return re.findall(r"[A-Za-z']+", text)


def test_the_commands_work_one_after_the_other(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [command[0] for command in commands()] == ["train", "train", "probe", "report", "audit"]
    for command in commands():
        with pytest.raises(SystemExit) as done:
            main(command)
        assert done.value.code in {0, None}
    assert fp.load_checkpoint("runs/natural-1").training is False
    assert "natural-1" in Path("report.html").read_text()
    shown = re.search(r"```\n(\u250f.*?)```", README.read_text(), flags=re.DOTALL)
    assert shown is not None
    assert words(capsys.readouterr().out)[-len(words(shown[1])) :] == words(shown[1])


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", README.with_name("Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README.read_text())) <= targets
