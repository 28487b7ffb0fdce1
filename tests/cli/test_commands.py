"""The command line from outside: processes, files, messages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import flatprobe as fp
from flatprobe.cli import main
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
