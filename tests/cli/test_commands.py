"""The command line from outside: processes, files, messages."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import torch

import flatprobe as fp
from flatprobe.cli import main
from flatprobe.cli.networks import NetworkOptions, architecture
from flatprobe.cli.reading import data_of
from flatprobe.graph.reparametrize import CHANGES
from flatprobe.studies.probes_by_name import CHOICES
from tests.helpers.packages import HEAVY, ROOT

COMMANDS = ("demo", "train", "compare", "probe", "probes", "audit", "report", "sweep")

NO_PROBE = f"probe must be one of {', '.join(map(repr, CHOICES))}, got 'luck'"
NO_CHANGE = f"change must be one of {', '.join(map(repr, CHANGES))}, got 'shear'"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from flatprobe.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
    )


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_help_is_light(command: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom flatprobe.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    help_text, _, loaded = done.stdout.partition("LOADED")
    assert "Usage: flatprobe" in help_text
    allowed = {"rich", "cyclopts"}
    assert not set(loaded.split()) & ((HEAVY | {"torch", "numpy", "scipy", "safetensors"}) - allowed)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    for seed in (0, 1):
        done = run(
            "train", "--data", "digits", "--limit", "80", "--network", "mlp", "--option.widths", "[32]", "--normalise",
            "--until", "interpolation", "--learning-rate", "0.1", "--seed", str(seed), "--out", f"runs/small-{seed}",
            cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "accuracy 100.00 %" in done.stdout
    return folder


def test_train_probe_report(runs: Path) -> None:
    probed = run("probe", "runs/small-0", "runs/small-1", "--out", "records", cwd=runs)
    assert probed.returncode == 0, probed.stderr
    assert "flatness radius" in probed.stdout
    assert "[1/" in probed.stderr  # off a terminal, plain lines
    result = fp.load(runs / "records" / "flatness_radius" / "small-1.parquet")
    data = fp.load_data("digits", limit=80)
    model = fp.load_checkpoint(runs / "runs" / "small-1")
    assert torch.equal(result.radii, fp.flatness_radius(fp.EmpiricalRisk(model, data)).radii)
    line = fp.load(runs / "records" / "landscape" / "small.parquet")
    assert line.coefficients.shape[1] == 2
    page = run("report", "records", "--out", "page.html", "--title", "Two small networks", cwd=runs)
    assert page.returncode == 0, page.stderr
    text = (runs / "page.html").read_text()
    assert "Two small networks" in text
    assert "small-1" in text


def test_probe_takes_a_state_dict_with_a_factory_and_other_data(runs: Path) -> None:
    (runs / "mine.py").write_text(
        "import flatprobe as fp\ndef network():\n"
        "    return fp.Normalised(fp.models.mlp((1, 8, 8), widths=(32,)), 0.3, 0.3)\n"
    )
    model = fp.load_checkpoint(runs / "runs" / "small-0")
    torch.save(model.state_dict(), runs / "foreign.pt")
    done = run(
        "probe", "foreign.pt", "--model", "mine:network", "--data", "digits", "--split", "test", "--limit", "30",
        "--probes", "functional_margins", "scores", "--out", "foreign", cwd=runs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (runs / "foreign").glob("*/")) == ["functional_margins", "scores"]
    margins = fp.load(runs / "foreign" / "functional_margins" / "foreign.parquet")
    data = fp.load_data("digits", split="test", limit=30)
    assert torch.equal(margins.values, fp.functional_margins(model, data).values)


@pytest.mark.parametrize(
    "command",
    [
        ("probe", "runs/small-0", "--out", "absent"),
        ("audit", "runs/small-0"),
        ("train", "--data", "digits", "--network", "mlp", "--out", "absent"),
    ],
    ids=lambda command: command[0],
)
def test_a_device_that_is_not_there_is_one_line(
    command: tuple[str, ...], runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--device", "cuda:99"])
    assert re.fullmatch(r"flatprobe: device must be one .*cpu.*, got 'cuda:99'.*\n", capsys.readouterr().err)
    assert not (runs / "absent").exists()


def test_audit_prints_a_table_and_writes_a_record(runs: Path) -> None:
    done = run(
        "audit", "runs/small-0", "--limit", "30", "--probes", "functional_margins", "scores", "--factor", "2",
        "--out", "audit.parquet", cwd=runs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "+100 %" in done.stdout
    assert "batch norm: not applied, no BatchNorm follows a layer" in done.stdout
    assert "follows the logits' scale: functional margins, scores" in done.stdout
    result = fp.load(runs / "audit.parquet")
    margins = fp.functional_margins(fp.load_checkpoint(runs / "runs" / "small-0"), fp.load_data("digits", limit=30))
    assert result.rows[0].before == margins.summary()["mean"]


def test_random_labels_of_a_run_come_back_when_it_is_probed(runs: Path) -> None:
    done = run(
        "train", "--data", "digits", "--limit", "40", "--random-labels", "1", "--network", "mlp", "--epochs", "1",
        "--out", "runs/random", "--seed", "3", cwd=runs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run("probe", "runs/random", "--probes", "scores", "--out", "random", cwd=runs)
    assert done.returncode == 0, done.stderr
    labels = fp.load(runs / "random" / "scores" / "random.parquet").labels
    assert torch.equal(labels, fp.load_data("digits", limit=40).with_random_labels(1.0, seed=3).labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("probe", "nowhere", "--data", "digits", "--out", "x"), "there is no checkpoint nowhere"),
        (
            ("probe", "runs/small-0", "--probes", "luck", "--out", "x"),
            f"probe must be one of {', '.join(map(repr, CHOICES))}, got 'luck'",
        ),
        (("probe", "foreign2.pt", "--out", "x"), "architecture of the checkpoint foreign2.pt is not known"),
        (
            ("probe", "foreign2.pt", "--model", "mine2:network", "--out", "x"),
            "whose training data are unknown: there is no config.json",
        ),
        (
            ("probe", "runs/small-0", "runs/small-0", "--out", "x"),
            "checkpoints must be given once, got runs/small-0",
        ),
        (
            ("probe", "runs/small-0", "--model", "mine", "--out", "x"),
            "must be package.module:name or path/to/file.py:name, got 'mine'",
        ),
        (
            ("audit", "runs/small-0", "--changes", "shear"),
            f"change must be one of {', '.join(map(repr, CHANGES))}, got 'shear'",
        ),
        (("report", "nowhere"), "nowhere"),
        (("train", "--data", "./mnits", "--network", "mlp", "--out", "x"), "there is no data set './mnits'"),
        (("train", "--data", "digits", "--network", "vgg", "--out", "x"), "network 'vgg' is unknown"),
        (
            ("train", "--data", "digits", "--network", "mlp", "--penalty", "double_backpropagation", "--out", "x"),
            "--penalty must have a strength, got 'double_backpropagation'",
        ),
        (
            ("train", "--data", "digits", "--network", "mlp", "--out", "x", "--penalty", "{'name': 'spectral_norm'}"),
            "(Expecting property name enclosed in double quotes at character 2). Write",
        ),
        (
            ("train", "--data", "digits", "--network", "mlp", "--out", "x", "--transform", '{"name": "mixup"'),
            "must be valid JSON, got '{\"name\": \"mixup\"' (Expecting ',' delimiter at character 17)",
        ),
        (
            (
                "train",
                "--data",
                "digits",
                "--network",
                "mlp",
                "--out",
                "x",
                "--optimizer",
                '{"name": "sgdl", "noise": -1}',
            ),
            "is -1; expected at least 0",
        ),
    ],
)
def test_errors_are_one_line_and_status_two(
    arguments: tuple[str, ...],
    message: str,
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(runs)
    model = fp.load_checkpoint("runs/small-0")
    torch.save(model.state_dict(), "foreign2.pt")
    monkeypatch.setitem(sys.modules, "mine2", ModuleType("mine2"))
    monkeypatch.setattr(sys.modules["mine2"], "network", lambda: model, raising=False)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in error.replace("\n", " ")
    assert "Traceback" not in error
    assert not Path("x").exists()


def test_train_takes_names_with_arguments_as_json(tmp_path: Path) -> None:
    asked = {
        "objective": {"name": "smoothed_maximum", "epsilon": 0.2},
        "optimizer": {"name": "sgdl", "noise": 0.001, "decay": 0.0},
        "schedule": {"name": "inverse", "decay": 0.01},
    }
    options = [part for name, value in asked.items() for part in (f"--{name}", json.dumps(value))]
    done = run(
        "train", "--data", "digits", "--limit", "40", "--network", "mlp", "--epochs", "1", "--momentum", "0",
        "--penalty", '{"name": "jacobian_frobenius", "strength": 0.01, "projections": 1}',
        "--penalty", '{"name": "double_backpropagation", "strength": 0.1}', "--precision", "bfloat16",
        *options, "--out", "runs/named", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = fp.TrainingRun.load(tmp_path / "runs" / "named").settings["settings"]
    assert {name: settings[name] for name in (*asked, "momentum")} == asked | {"momentum": 0.0}
    frobenius = {"name": "jacobian_frobenius", "projections": 1, "outputs": "logits"}
    assert settings["penalties"] == [[0.01, frobenius], [0.1, {"name": "double_backpropagation"}]]
    assert settings["precision"] == "bfloat16"


def test_the_data_of_a_run_on_streamed_data_are_recognised(tmp_path: Path) -> None:
    """A stream's fingerprint covers some samples: in memory the same digits have another."""
    data = fp.load_data("digits", limit=40, stream=True).with_random_labels(0.5, seed=1)
    run = fp.train(fp.models.mlp((1, 8, 8), widths=(4,)), data, epochs=1, out=tmp_path / "run")
    found = data_of(tmp_path / "run", None, None, None)
    assert found.fingerprint == data.fingerprint
    assert torch.equal(fp.functional_margins(run.model, found).values, fp.functional_margins(run.model, data).values)
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace(data.fingerprint, "0" * 32))
    with pytest.raises(
        ValueError, match=f"digits must be the training data of .*, with the fingerprint 000.*, got {data.fingerprint}"
    ):
        data_of(tmp_path / "run", None, None, None)


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
