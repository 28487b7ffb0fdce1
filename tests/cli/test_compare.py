"""The commands compare, probe and probes: files, tables, groups, axes, exit statuses."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

import flatprobe as fp
from flatprobe.cli import main
from flatprobe.cli.measurements import MeasurementOptions, along_of, groups_of, measurements_of
from flatprobe.studies.comparison import Comparison
from flatprobe.studies.headlines import headline
from flatprobe.studies.probes_by_name import CHOICES
from flatprobe.utils.numbers import three

NET = """
import flatprobe as fp
def build(width=8): return fp.models.mlp((1, 8, 8), widths=(width,))
"""
TOML = '[[measurements]]\nprobe = "flatness_radius"\nname = "r"\narguments.directions = 3\n'
COMMON = ("--model", "net.py:build", "--data", "digits", "--limit", "40")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an own network and three epochs of it; digits are mostly wrong at first."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data, network = fp.load_data("digits", limit=40), fp.models.mlp((1, 8, 8), widths=(8,))
    for epoch in (1, 2, 10):
        run = fp.train(network, data, epochs=10, learning_rate=0.2)
        network = run.model
        (tmp_path / "epochs").mkdir(exist_ok=True)
        torch.save(network.state_dict(), tmp_path / "epochs" / f"epoch-{epoch}.pt")
    return tmp_path


def called(*tokens: str) -> int:
    """The exit status of a command."""
    try:
        main([*tokens])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_a_trajectory_through_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("compare", "epochs", *COMMON, "--along", "epoch", "--probes", "generalization,functional_margins")
    assert called(*command, "--out", "out", "--table", "table.csv", "--table", "table.md") == 0
    output = capsys.readouterr()
    found = Comparison.load("out")
    assert found.along == {"epoch-1": 1.0, "epoch-2": 2.0, "epoch-10": 10.0}
    assert found.networks == ["epoch-1", "epoch-2", "epoch-10"]
    assert output.out.index("train accuracy") < output.out.index("functional margins")
    for name, result in found.results["functional_margins"].items():
        own = headline(result)
        assert own is not None
        words = three(own.value)
        assert words in output.out  # the console shows the figure of the summary, under the page's name
        assert own.value == result.summary()["mean"] == pytest.approx(float(result.values.mean()))
        assert name in output.out
    assert "[1/6" in output.err
    table = pd.read_csv("table.csv")
    assert set(table["epoch"]) == {1, 2, 10}
    assert table["checkpoint_hash"].nunique() == 3
    assert "epoch-10" in Path("out/report.html").read_text()
    assert called(*command, "--out", "out") == 0
    assert "[1/6" not in capsys.readouterr().err  # nothing is measured again
    assert called(*command, "--out", "out", "--again", "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_one_refusal_stops_nothing_and_gives_status_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "epochs" / "broken.pt").write_bytes(b"no checkpoint")
    torch.save({"other": torch.zeros(3)}, folder / "epochs" / "strange.pt")
    probes = ("--probes", "geometric_margins", "scores", "--probe", "scores outputs=nothing")
    assert called("compare", "epochs", *COMMON, *probes, "--out", "out") == 1
    output = capsys.readouterr()
    assert "not measured: broken: " in output.err
    assert "not measured: strange: " in output.err
    assert output.err.count("scores (outputs=nothing) of 3 networks (epoch-1, epoch-2, epoch-10): outputs must") == 1
    found = Comparison.load("out")
    assert len(found.results["scores"]) == len(found.results["geometric_margins"]) == 3
    assert len(found.refusals) == 5
    assert Path("out/report.html").is_file()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("nowhere",), "nowhere"),
        (("epochs", "--probes", "luck"), "probe must be one of"),
        (("nowhere", "--probes", "scorez,luck"), "got 'scorez', 'luck'. Did you mean 'scores'?"),  # before the loading
        (("nowhere", "--probe", "flatnes_radius directions=3"), "Did you mean 'flatness_radius'?"),
        (("nowhere", "--loss", "mse"), "got 'mse'. Did you mean 'squared_error'?"),
        (("epochs", "--probe", "scores outputs"), "must be a probe and different arguments name=value, got 'outputs'"),
        (("epochs", "--probe", "flatness_radius law=adaptiv"), ""),
        (("epochs", "--probe", "flatness_radius radius=3"), "arguments of flatness_radius must be among"),
        (("epochs", "--along", "width"), "--along must have a finite number for every network, got none of 'width'"),
        (("epochs", "--along", "no.csv:width"), "--along must name a CSV file that is there"),
        (("epochs", "--group", "natural"), "--group must be LABEL=PATTERN"),
        (("epochs", "--group", "a=nat*"), "must have a pattern that fits a network"),
        (("epochs", "--table", "table.xlsx"), "must end in .parquet, .csv, .md, .tex"),
        (("epochs", "--table", "net.py/table.csv"), "the folder of a table must be a folder, got the file net.py"),
        (("epochs", "--config", "no.toml"), "--config must name a JSON or TOML file"),
        (("epochs", "--workers", "0"), "workers must be"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    folder: Path, tokens: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = () if any("prob" in token or "config" in token for token in tokens) else ("--probes", "scores")
    status = called("compare", *tokens, *COMMON, *extra, "--out", "out")
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert status == (2 if message else 1)  # a value that the probe alone knows is refused by the probe
    assert folder.exists()


def test_a_table_without_a_place_costs_no_measurement_and_no_page(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("compare", "epochs", *COMMON, "--probes", "scores", "--out", "out", "--table")
    (folder / "folder.md").mkdir()
    (folder / "mine.parquet").write_text("mine")
    for bad in ("net.py/table.csv", "folder.md", "mine.parquet"):
        assert called(*own, bad) == 2
        assert bad in capsys.readouterr().err
        assert not (folder / "out").exists()

    def full(*_: object) -> None:
        msg = "no space"
        raise OSError(msg)

    monkeypatch.setattr(Comparison, "write", full)
    assert called(*own, "table.csv") == 2
    assert (folder / "out" / "report.html").is_file()


def test_a_dry_run_measures_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("compare", "epochs", *COMMON, "--out", "out", "--dry-run") == 0
    words = capsys.readouterr().out
    assert "forward passes" in words
    assert "51.0" in words  # of the radius: 10 directions at 5 passes, and the start
    assert not (folder / "out").exists()


def test_probe_writes_the_records_of_compare_without_a_page(folder: Path) -> None:
    assert called("probe", "epochs", *COMMON, "--probes", "scores", "--out", "records", "--group", "late=epoch-10") == 0
    assert sorted(path.name for path in (folder / "records").iterdir()) == ["comparison.json", "scores"]
    groups = json.loads((folder / "records" / "comparison.json").read_text())["groups"]
    assert groups == {"epoch-1": "epoch-1", "epoch-2": "epoch-2", "epoch-10": "late"}  # epochs are no replicates
    assert called("report", "records", "--out", "page.html") == 0
    assert "late" in (folder / "page.html").read_text()


def test_the_list_of_probes_has_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert called("probes") == 0
    words = capsys.readouterr().out
    assert all(name in words for name in CHOICES)


def test_measurements_in_words_and_files(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"measurements": ["scores", {"probe": "scores", "on": "test"}]}))
    (tmp_path / "m.toml").write_text(
        '[[measurements]]\nprobe = "flatness_radius"\nname = "r"\narguments.directions = 3\n'
    )
    words = (
        "flatness_radius law=adaptive directions=20",
        "geometric_margins lower=[] name=m",
        "hessian_trace",
        "scores on=test",
    )
    options = MeasurementOptions(probe=words, probes=("scores,functional_margins", "weight_norms"))
    found = measurements_of(options)
    assert found is not None
    assert found[:3] == ["scores", "functional_margins", "weight_norms"]
    radius, margins, trace, scores = found[3:]
    assert radius == fp.Measurement(
        "flatness_radius",
        arguments={"law": "adaptive", "directions": 20},
        name="flatness_radius (law=adaptive, directions=20)",
    )
    assert (margins.name, margins.arguments["lower"], trace) == ("m", [], "hessian_trace")
    assert (scores.on, scores.name) == ("test", "scores (on=test)")
    first, second = measurements_of(MeasurementOptions(config=tmp_path / "m.json")) or []
    assert (first, second.on) == ("scores", "test")
    (own,) = measurements_of(MeasurementOptions(config=tmp_path / "m.toml")) or []
    assert (own.name, own.arguments) == ("r", {"directions": 3})
    assert measurements_of(MeasurementOptions()) is None
    bad = {
        "{": "cannot be read",
        "[]": "must hold a list",
        '[{"on": "test"}]': "must have a probe",
        '[{"probe": "scores", "steps": 3}]': "must have fields among",
        "\udcff": "cannot be read",
    }
    for content, match in bad.items():
        (tmp_path / "bad.json").write_text(content, errors="surrogateescape")
        with pytest.raises(ValueError, match=match):
            measurements_of(MeasurementOptions(config=tmp_path / "bad.json"))
    for content, match in (
        ('[{"probe": "scores", "arguments": []}]', "arguments"),
        ('[{"probe": "scores", "name": 7}]', "name"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(TypeError, match=f"{match} of a measurement must be"):
            measurements_of(MeasurementOptions(config=tmp_path / "bad.json"))
    with pytest.raises(ValueError, match=r"different arguments name=value, got 'directions=3'"):
        measurements_of(MeasurementOptions(probe=("flatness_radius directions=2 directions=3",)))


def test_groups_and_axes(tmp_path: Path) -> None:
    names = ["a-0", "a-1", "b-epoch-1", "b-epoch-2"]
    assert [*groups_of(names, ["x=a-*"], None).values()] == ["x", "x", "b-epoch-1", "b-epoch-2"]
    assert groups_of(["b-epoch-1", "epoch-2"], [], "epoch") == {"b-epoch-1": "b", "epoch-2": "networks"}
    places = {name: tmp_path / name for name in ("run-lr0.1", "run-lr1e-3")}
    assert along_of(places, "lr") == ({"run-lr0.1": 0.1, "run-lr1e-3": 0.001}, "lr")
    (tmp_path / "table.csv").write_text("name,width\nrun-lr0.1,64\nrun-lr1e-3,128\nother,x\n")
    assert along_of(places, f"{tmp_path / 'table.csv'}:width") == ({"run-lr0.1": 64.0, "run-lr1e-3": 128.0}, "width")
    with pytest.raises(ValueError, match=r"must name a column of .*, got 'depth'\. Its columns: width"):
        along_of(places, f"{tmp_path / 'table.csv'}:depth")
    run = tmp_path / "one"
    run.mkdir()
    (run / "config.json").write_text('{"settings": {"learning_rate": 0.3, "nesterov": true}}')
    assert along_of({"one": run}, "learning_rate") == ({"one": 0.3}, "learning_rate")
    with pytest.raises(ValueError, match="got none of 'nesterov' for one"):
        along_of({"one": run}, "nesterov")
    (tmp_path / "twice.csv").write_text("name,width\none,64\none,128\n")
    with pytest.raises(ValueError, match="must name each network once in its first column, got one more than once"):
        along_of({"one": run}, f"{tmp_path / 'twice.csv'}:width")
    (tmp_path / "inf.csv").write_text("name,width\none,inf\n")
    with pytest.raises(ValueError, match=r"must have a finite number for every network.* Complete the column"):
        along_of({"one": run}, f"{tmp_path / 'inf.csv'}:width")


SAMPLES = """
import torch
X = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
def same(split): return X, (X.sum(1) > 3).long()
def numbers(split): return (X if split == "train" else X + 0.1), X.sum(1, keepdim=True)
"""
SMALL = "from torch import nn\ndef build(outputs=2): return nn.Linear(6, outputs)\n"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small.py").write_text(SMALL)
    (tmp_path / "own.py").write_text(SAMPLES)
    monkeypatch.chdir(tmp_path)
    for outputs in (1, 2):
        for name in ("a", "b"):
            torch.save({"model": torch.nn.Linear(6, outputs).state_dict()}, f"{name}{outputs}.pt")
    return tmp_path


def test_test_data_that_are_the_training_data_cost_the_test_figures_alone(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(small / "own.py:same"), "--probes", "generalization", "--out", "out")
    assert called("compare", "a2.pt", "b2.pt", "--model", "small.py:build", *data) == 0
    error = capsys.readouterr().err
    assert error.count("the test data are the 30 training samples again; no test figures. Name another split") == 1
    assert "2 checkpoints (a2, b2): weights read from the key 'model'\n" in error
    found = Comparison.load("out").results["generalization"]
    assert [result.summary().keys() for result in found.values()] == [{"train_accuracy", "train_loss"}] * 2


@pytest.mark.filterwarnings("always:no class labels")
def test_a_regression_leaves_out_the_probes_of_classes_unless_they_are_named(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--model", "small.py:build", "--model-arg", "outputs=1", "--data", str(small / "own.py:numbers"))
    common = (*common, "--loss", "squared_error", "--out", "out")
    assert called("compare", "a1.pt", "b1.pt", *common, "--dry-run") == 0
    assert capsys.readouterr().err.count("no class labels: the probes of the inputs are left out (functional_mar") == 1
    assert called("compare", "a1.pt", "b1.pt", *common, "--probes", "scores,generalization") == 1
    assert "not measured: scores of 2 networks (a1, b1): the labels must be class" in capsys.readouterr().err


def test_a_wrong_width_names_the_option(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("compare", "a2.pt", "--model", "small.py:build", "--model-arg", "outputs=3", "--out", "out") == 2
    error = capsys.readouterr().err
    assert "2 of another shape: weight (2, 6) instead of (3, 6)" in error
    assert "--model-arg width=64" in error
    assert called("compare", "a2.pt", "--model", "small.py:build", "--out", "out") == 2
    assert 'Give "digits", a name on the Hugging Face hub, a folder' in capsys.readouterr().err
