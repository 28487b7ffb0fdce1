"""Sweeps: each unit computed once, failures and damage told, interrupted trainings continued."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import flatprobe as fp
from flatprobe.studies import units
from flatprobe.studies.sweep import rows
from flatprobe.utils.tables import read_table
from tests.helpers import sweeps
from tests.helpers.sweeps import base, comparable

PAIR = base().vary({"seeds.network": (0, 1)})
RISK = fp.Measurement("risk", on="test")


def test_slow_reference_a_sweep_is_training_and_probing_by_hand(tmp_path: Path) -> None:
    penalties = [[0.1, {"name": "jacobian_frobenius", "projections": 1}]]
    stages = [{"name": "first", "epochs": 2, "learning_rate": 0.1}, {"epochs": 1, "penalties": penalties}]
    experiment = fp.Experiment(
        network={"name": "mlp", "widths": [8], "scale": 2.0},
        data={"name": "digits", "samples": 60, "draw": "first", "random_labels": 1.0},
        stages=stages,
        seeds={"data": 3, "network": 4, "order": 5},
    )
    measurements = [
        fp.Measurement("flatness_radius", stage="first", arguments={"directions": 2, "seed": 7}),
        fp.Measurement("functional_margins", on="test", samples=30),
        fp.Measurement("weight_norms", stage="initial"),
        fp.Measurement("history"),
        RISK,
    ]
    table = fp.sweep([experiment], measurements, tmp_path).set_index("measurement")
    data = fp.load_data("digits", limit=60).with_random_labels(seed=3)
    initial = fp.models.scaled(fp.models.mlp(data.input_shape, widths=(8,), seed=4), 2.0)
    first = fp.train(initial, data, epochs=2, learning_rate=0.1, seed=5)
    last = fp.train(first.model, data, epochs=1, penalties=penalties, seed=5)
    radii = fp.flatness_radius(fp.EmpiricalRisk(first.model, data), directions=2, seed=7)
    assert torch.equal(fp.load(table["record"]["flatness_radius"]).radii, radii.radii)
    test = fp.load_data("digits", "test")
    margins = fp.functional_margins(last.model, test.head(30))
    assert torch.equal(fp.load(table["record"]["functional_margins"]).values, margins.values)
    norms = fp.weight_norms(initial.eval(), data.input_shape)
    assert table["l2"]["weight_norms"] == norms.summary()["l2"]
    risk = fp.EmpiricalRisk(last.model, test)()
    assert (table["loss"]["risk"], table["error"]["risk"]) == (risk.loss, risk.error)
    history = read_table(table["record"]["history"])[0]
    assert history["train_loss"].tolist() == [row["train_loss"] for row in last.history]
    assert table["data.random_labels"].unique().tolist() == [1.0]


def test_what_is_complete_is_not_computed_again(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    counted = fp.Measurement(sweeps.count, arguments={"folder": str(calls)})
    first = fp.sweep(PAIR, [counted], tmp_path / "root")
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*") if path.is_file()}
    again = fp.sweep(PAIR, [counted], tmp_path / "root")
    assert len([*calls.iterdir()]) == 2
    assert first.equals(again)
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    more = fp.sweep([*PAIR, *base().vary({"seeds.network": (2,)})], [counted, RISK], tmp_path / "root")
    assert len([*calls.iterdir()]) == 3
    assert len(more) == 6
    trained = [path for path in runs if path.name == "last.safetensors"]
    assert {path: path.stat().st_mtime_ns for path in trained} == {path: runs[path] for path in trained}


def test_joint_measurements_take_several_networks(tmp_path: Path) -> None:
    landscape = fp.Measurement("interpolate", experiments=PAIR, arguments={"steps": 3}, name="line")
    apart = fp.Measurement(sweeps.distance, experiments=PAIR, stage="initial")
    table = fp.sweep([], [landscape, apart], tmp_path)
    joint = table[table["measurement"] != ""]
    assert joint["state"].tolist() == ["complete"] * 2
    assert joint["experiment"].unique().tolist() == ["+".join(experiment.key for experiment in PAIR)]
    first, second = (torch.cat([value.detach().flatten() for value in e.build().parameters()]) for e in PAIR)
    assert joint["distance"].iloc[1] == pytest.approx(float((first - second).norm()))
    points = rows(table, "line")
    assert points["lambda_1"].tolist() == [1.0, 0.5, 0.0]
    assert "seeds.network" not in points  # the networks differ in it
    assert points["seeds.order"].unique().tolist() == [0]


def test_a_failure_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    bad = base().vary({"stages.0.learning_rate": (1e30,)})
    measurements = [
        RISK,
        fp.Measurement(sweeps.fail),
        fp.Measurement(sweeps.words),
        fp.Measurement(sweeps.fail_once, arguments={"flag": flag}),
    ]
    table = fp.sweep([*bad, PAIR[0]], measurements, tmp_path / "root")
    assert table["state"].tolist() == ["failed"] * 4 + ["complete"] + ["failed"] * 3
    assert table["failure"].iloc[0].startswith("DivergedError: ")
    assert table["failure"].iloc[5] == "ArithmeticError: the probe's own words"
    assert "a dictionary of numbers, got a str" in table["failure"].iloc[6]
    kept = [json.loads(path.read_text()) for path in (tmp_path / "root" / "failures").iterdir()]
    assert any("in fail\n" in entry["traceback"] for entry in kept)
    again = fp.sweep([*bad, PAIR[0]], measurements, tmp_path / "root")
    assert again["state"].tolist() == ["failed"] * 4 + ["complete"] + ["failed"] * 2 + ["complete"]
    errors = [json.loads(path.read_text())["error"] for path in (tmp_path / "root" / "failures").iterdir()]
    assert "ArithmeticError: at first" not in errors  # what has succeeded since leaves no failure


def test_a_training_that_fails_is_named_by_what_needs_it(tmp_path: Path) -> None:
    bad = base().vary({"stages.0.learning_rate": (1e30,)})
    line = fp.Measurement("interpolate", experiments=[*bad, PAIR[0]])
    table = fp.sweep([], [line], tmp_path)
    assert f"the network of experiment {bad[0].key} is not there" in table["failure"].iloc[-1]


def test_rows_keep_what_a_stage_did_not_reach(tmp_path: Path) -> None:
    stages = [{"epochs": 1, "until": "interpolation", "on_failure": "flag"}]
    short = base().vary({"stages": (stages, [{"epochs": 1}])})
    assert fp.sweep(short, [RISK], tmp_path)["reached"].tolist() == [False, True]


@pytest.mark.parametrize("probe", [sweeps.leave, sweeps.nothing, sweeps.unprintable])
def test_a_strange_probe_fails_alone(probe: object, tmp_path: Path) -> None:
    table = fp.sweep(PAIR[:1], [fp.Measurement(probe), RISK], tmp_path)
    assert table["state"].tolist() == ["failed", "complete"]
    table["failure"].iloc[0].encode()


def test_a_damaged_record_is_a_failure_until_it_is_deleted(tmp_path: Path) -> None:
    first = fp.sweep(PAIR, [RISK], tmp_path)
    record = Path(first["record"].iloc[0])
    record.write_bytes(record.read_bytes()[:-9])
    (units.experiment_folder(tmp_path, PAIR[1]) / "complete.json").write_text("{")
    table = fp.sweep(PAIR, [RISK], tmp_path)
    assert table["state"].tolist() == ["failed", "complete"]
    assert "Delete the file, and call again" in table["failure"].iloc[0]
    assert table["training_seconds"].isna().tolist() == [False, True]
    record.unlink()
    assert fp.sweep(PAIR, [RISK], tmp_path)["state"].tolist() == ["complete"] * 2


def test_one_joint_measurement_under_two_names_is_two_rows(tmp_path: Path) -> None:
    both = [fp.Measurement("interpolate", experiments=PAIR, arguments={"steps": 3}, name=name) for name in ("a", "b")]
    table = fp.sweep([], both, tmp_path)
    assert table["measurement"].tolist() == ["", "", "a", "b"]
    assert rows(table, "a").equals(rows(table, "b"))


def test_a_relative_root_is_one_folder_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = fp.sweep(PAIR[:1], [RISK], "root")
    assert Path(table["record"].iloc[0]).is_relative_to(tmp_path / "root")


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    long = base().vary({"stages.0.epochs": (40,)})[0]
    code = (
        "import flatprobe as fp, json, sys; from tests.helpers.sweeps import base; import flatprobe.studies.units as u;"
        "u.train = (lambda t: lambda *a, **k: t(*a, save_every=0, **k))(u.train);"
        f"fp.sweep(base().vary({{'stages.0.epochs': (40,)}}), [], {str(tmp_path / 'root')!r})"
    )
    folder = units.experiment_folder(tmp_path / "root", long)
    partial = folder.with_name(f".{folder.name}.partial") / "first" / "resume.safetensors"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while not partial.is_file() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not folder.exists()
    table = fp.sweep([long], [RISK], tmp_path / "root")
    alone = fp.sweep([long], [RISK], tmp_path / "other")
    assert comparable(table).equals(comparable(alone))
    assert not partial.parent.parent.exists()
    history = json.loads((folder / "first" / "history.json").read_text())
    assert len(history["epochs"]) == 40


def test_an_interrupted_training_on_data_that_changed_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = fp.train, []

    def interrupted(*args, **arguments):
        run = real(*args, **arguments)
        if not seen:
            seen.append(run)
            raise ArithmeticError
        return run

    monkeypatch.setattr(units, "train", interrupted)
    assert fp.sweep(PAIR[:1], [RISK], tmp_path)["state"].tolist() == ["failed"]
    [config] = tmp_path.glob("experiments/.*.partial/first/config.json")
    config.write_text(config.read_text().replace('"fingerprint": "', '"fingerprint": "other'))
    assert fp.sweep(PAIR[:1], [RISK], tmp_path)["state"].tolist() == ["complete"]


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"executor": "cluster"}, ValueError, "executor must be one of 'serial', 'processes', 'dask', 'slurm'"),
        ({"executor": ThreadPoolExecutor(2)}, ValueError, "executor must not be a pool of threads"),
        ({"experiments": PAIR[0]}, TypeError, r"experiments must be a list of fp\.Experiment, got a Experiment"),
        ({"experiments": iter(PAIR)}, TypeError, r"experiments must be a list of fp\.Experiment, got a list_iterator"),
        ({"executor": 3}, TypeError, "executor must be a name, a concurrent.futures.Executor"),
        ({"workers": 0}, ValueError, "workers"),
        ({"experiments": []}, ValueError, "at least one experiment"),
        ({"experiments": [{}]}, TypeError, r"experiments must be a list of fp\.Experiment, got a dict"),
        ({"measurements": ["risk"]}, TypeError, r"measurements must be a list of fp\.Measurement, got a str"),
        ({"measurements": [RISK, RISK]}, ValueError, "measurements must have distinct names"),
        (
            {"measurements": [fp.Measurement("risk", stage="second")]},
            ValueError,
            "stage must be one of 'initial', 'first'",
        ),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(
    arguments: dict[str, object], kind: type[Exception], match: str, tmp_path: Path
) -> None:
    given = {"experiments": PAIR, "measurements": [RISK]} | arguments
    with pytest.raises(kind, match=match):
        fp.sweep(given.pop("experiments"), given.pop("measurements"), tmp_path / "root", **given)
    assert not (tmp_path / "root").exists()


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="must be writable"):
        fp.sweep(PAIR, [RISK], tmp_path / "file")


def test_progress_tells_the_time_that_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fp.sweep(PAIR, [RISK], tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("[1/2, ")
    assert "s left" in lines[0]
    assert f"{PAIR[1].key[:8]}: complete" in lines[1]


def test_rows_of_an_unknown_measurement(tmp_path: Path) -> None:
    table = fp.sweep(PAIR[:1], [RISK], tmp_path)
    with pytest.raises(ValueError, match="must be the name of a complete one, among risk, got 'margins'"):
        rows(table, "margins")
