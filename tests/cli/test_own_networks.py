"""The commands on networks and files of the user's own: what is taken, and what is told of the rest."""

import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import flatprobe as fp
from flatprobe.cli import main
from flatprobe.cli.networks import NetworkOptions, architecture
from flatprobe.cli.reading import data_of


def assert_refused(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = "".join(re.findall(r"^(?!warning: ).*\n", capsys.readouterr().err, flags=re.MULTILINE))
    assert re.search(message, error), error
    assert error.count("\n") == 1


OWN = """
from torch import nn
def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
def needs(width): return nn.Linear(64, width)
def fails(): raise KeyError("x")
def number(): return 3
model = build()
three = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module and checkpoints of the user's own, which is the current one."""
    (tmp_path / "own_network.py").write_text(OWN)
    (tmp_path / "bad_network.py").write_text("raise KeyError('x')")
    state = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).state_dict()
    for name in ("run_a/model.pt", "run_b/model.pt", "own.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save(state, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_network", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "model", ["own_network:build", "own_network:model", "own_network.py:build", "{}/own_network.py:build"]
)
def test_a_network_of_the_current_folder_or_of_a_file(own: Path, model: str) -> None:
    arguments = ("--model", model.format(own), "--data", "digits", "--limit", "20", "--probes", "scores", "--out", "r")
    main_done(("probe", "own.pt", *arguments))
    network = architecture(NetworkOptions(model="own_network.py:build"))
    expected = fp.scores(fp.load_checkpoint("own.pt", network), fp.load_data("digits", limit=20))
    assert torch.equal(fp.load("r/scores/own.parquet").values, expected.values)


def main_done(arguments: tuple[str, ...]) -> None:
    with suppress(SystemExit):
        main(arguments)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "own_network:needs",
            r"takes no arguments, got 'own_network:needs', which is needs\(width\): missing .* 'width'",
        ),
        ("own_network:nothere", "own_network has no nothere. Its functions and classes: build, needs"),
        ("own_network:three", "got 'own_network:three', which is an object of type int"),
        ("own_network:nn", "got 'own_network:nn', which is an object of type module"),
        ("own_network:number", "returns a torch.nn.Module, got own_network:number, which returned a int"),
        ("own_network:fails", "got 'own_network:fails', which raised KeyError: 'x'"),
        ("own_network:build()", r"must be package\.module:name or path/to/file\.py:name, got 'own_network:build\(\)'"),
        ("bad_network:build", "can be imported, got 'bad_network', which raised KeyError: 'x'"),
        ("nowhere.py:build", r"'nowhere\.py', which raised FileNotFoundError"),
    ],
)
def test_what_is_no_network_is_told(own: Path, capsys: pytest.CaptureFixture[str], model: str, message: str) -> None:
    assert_refused(capsys, ("probe", str(own / "own.pt"), "--model", model, "--data", "digits", "--out", "r"), message)


def test_probes_with_commas_and_a_place_that_is_taken(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("probe", "own.pt", "--model", "own_network:build", "--data", "digits", "--limit", "20", "--out", "r")
    main_done((*arguments, "--probes", "scores,functional_margins"))
    assert sorted(path.name for path in Path("r").iterdir()) == ["comparison.json", "functional_margins", "scores"]
    Path("r/scores/own.parquet").write_text("precious")
    capsys.readouterr()
    assert_refused(capsys, (*arguments, "--probes", "scores"), r"own\.parquet exists and is no record of flatprobe")
    Path("page.html").write_text("precious")
    assert_refused(capsys, ("report", "r", "--out", "page.html"), r"own\.parquet is not a readable parquet file")
    Path("r/scores/own.parquet").unlink()
    assert_refused(capsys, ("report", "r", "--out", "page.html"), r"page\.html exists and is no page of flatprobe")


@pytest.mark.parametrize("content", ["{", "[]", '{"data": 3}', '{"data": {"source": {}}}'])
def test_a_config_that_does_not_name_the_data(own: Path, content: str) -> None:
    (own / "config.json").write_text(content)
    with pytest.raises(ValueError, match="--data"):
        data_of(own / "own.pt", None, None, None)


def test_interrupted_is_said_with_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_tokens: object, **_options: object) -> None:
        error = KeyboardInterrupt()
        error.add_note("2 records are kept in r")
        raise error

    monkeypatch.setattr("flatprobe.cli.app", interrupted)
    with pytest.raises(SystemExit) as caught:
        main(())
    assert caught.value.code == 130
    assert capsys.readouterr().err == "flatprobe: interrupted; 2 records are kept in r\n"


def test_options_of_a_network_are_listed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert own.exists()
    train = ("train", "--data", "digits", "--network", "mlp", "--epochs", "1", "--out", "x")
    message = r"widths is 512; expected whole numbers in a list.* for mlp\(input_shape.*widths: Sequence\[int\]"
    assert_refused(capsys, (*train, "--option.widths", "512"), message)
    assert_refused(
        capsys, (*train, "--option.depth", "3"), r"unexpected keyword argument 'depth'.* for mlp\(input_shape"
    )
