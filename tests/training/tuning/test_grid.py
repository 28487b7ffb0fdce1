"""The edges of the grid, the folder and the record of a tuning, and what it refuses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flatprobe as fp
from flatprobe.models import mlp
from flatprobe.training.loop import train
from flatprobe.training.tuning import tune as module
from flatprobe.training.tuning.tune import tune
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters
from tests.training.tuning.test_tune import QUICK, assert_same_table


def test_closed_form_edges() -> None:
    quick = QUICK | {"seeds": (0,), "epochs": 1}
    scripted = {0.0: 1.0, 0.1: 1.0, 1.0: 1.0}

    def chosen(best, strengths):
        tuning = tune(mlp((4,), classes=3), clusters(), **quick | {"strengths": strengths})
        for row in tuning.rows:
            row["strength"] = best if row["stage"] == "final" else row["strength"]
        return tuning

    assert not chosen(0.0, scripted).at_edge  # nothing lies below plain training
    assert not chosen(0.1, scripted).at_edge
    assert chosen(1.0, scripted).at_edge
    assert chosen(0.1, (0.1, 1.0)).at_edge
    assert repr(chosen(1.0, scripted)).endswith("at the edge of the grid: extend strengths)")
    assert repr(chosen(0.1, scripted)).startswith("Tuning(strength=0.1, validation_loss=")
    assert "edge" not in repr(chosen(0.1, scripted))


def test_property_folders_resume_and_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network, test = mlp((4,), classes=3), clusters(20, key="test")
    whole = tune(network, clusters(), test=test, **QUICK)
    done = []

    def breaking(*args, **settings):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(1)
        return train(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", breaking)
        with pytest.raises(KeyboardInterrupt):
            tune(network, clusters(), test=test, out=tmp_path, **QUICK)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.safetensors")}
    assert len(finished) == 4
    tuning = tune(network, clusters(), test=test, out=tmp_path, progress=True, **QUICK)
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.safetensors")}.items()
    assert_same_table(tuning, whole)
    assert_same_state(tuning.runs[1].model, whole.runs[1].model)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert "strength 0.01, seed 0: validation loss" in lines[0]
    loaded = fp.load(tmp_path / "tuning.parquet")
    assert_same_table(loaded, tuning)
    assert (loaded.strength, loaded.summary(), loaded.runs) == (tuning.strength, tuning.summary(), ())
    assert loaded.settings == json.loads(json.dumps(tuning.settings))
    path = tmp_path / "final" / f"strength-{tuning.strength}" / "seed-1"
    assert_same_state(fp.TrainingRun.load(path).model, whole.runs[1].model)
    wider = tune(network, clusters(), test=test, out=tmp_path, **QUICK | {"strengths": (0.01, 0.1, 1.0)})
    assert [row for row in wider.table if row["strength"] < 1] == tuning.table
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.safetensors")}.items()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"setting": None}, "one of setting and penalty must be given, got setting=None and penalty=None"),
        ({"penalty": "jacobian"}, "got setting='weight_decay' and penalty='jacobian'"),
        (
            {"setting": "dropout"},
            "setting must name an .*, one of weight_decay, learning_rate, momentum, .*, got 'dropout'",
        ),
        ({"weight_decay": 0.1}, "that this call does not pass, .*, got 'weight_decay'"),
        ({"setting": lambda strength: strength}, r"setting\(0.01\) must be a dict of arguments of train, got a float"),
        ({"strengths": (0.1,)}, r"strengths must be a list of at least two different numbers, .*, got \(0.1,\)"),
        ({"strengths": (0.1, 0.1)}, r"at least two different numbers, .*, got \(0.1, 0.1\)"),
        ({"strengths": (0.1, -1)}, r"finite and at least 0, .*, got \(0.1, -1\)"),
        ({"strengths": (0.1, math.nan)}, r"finite and at least 0, .*, got \(0.1, nan\)"),
        ({"validation": 0.0}, r"validation must be LabelledData, or a fraction .*, got 0\.0 of 37 samples"),
        ({"validation": 1.5}, "got 1.5 of 37 samples"),
        ({"validation": 0.01}, "leaves at least one sample on either side"),
        ({"seeds": ()}, r"seeds must be a list of different whole numbers, .*, got \(\)"),
        ({"seeds": (1, 1)}, r"different whole numbers, .*, got \(1, 1\)"),
        ({"seed": 3}, r"seed must be left out, got 3. Give seeds=\(\.\.\.\)"),
        ({"seeds": 3}, r"seeds must be a list .*, such as \(0, 1\), got 3"),
        ({"seeds": (0.5,)}, r"whole numbers, .*, got \(0.5,\)"),
        ({"strengths": 0.1}, "strengths must be a list .*, got 0.1$"),
        ({"strengths": "12"}, "strengths must be a list .*, got '12'"),
        ({"strengths": (0.1, "1")}, r"numbers, .*, got \(0.1, '1'\)"),
        ({"validation": None}, "got None of 37 samples"),
        ({"validation": "0.2"}, "got '0.2' of 37 samples"),
        ({"setting": 3}, "setting must name an .*, one of weight_decay, learning_rate, momentum, .*, got 3"),
        ({"progress": "no"}, r"progress must be one of.*, got 'no'"),
        ({"penalties": "spectral_norm"}, "penalties is 'spectral_norm'; expected a list of penalties"),
        ({"penalties": None, "setting": None, "penalty": "spectral_norm"}, "penalties is None; expected a list"),
        ({"setting": "momentum", "strengths": (0.5, 1.0)}, "momentum must be at least 0 and below 1, got 1.0"),
        ({"setting": None, "penalty": "ridge"}, r"the penalty must be one of.*, got 'ridge'"),
        ({"widths": 3}, "at strength 0.01 the arguments must be those of train, got widths"),
        (
            {"setting": lambda _: {"penalties": []}, "penalties": []},
            r"setting\(0.01\) must leave out what the call or tune itself gives, got penalties",
        ),
        ({"setting": lambda _: {"weight_decay": 1.0}, "weight_decay": 0.1}, "must leave out .*, got weight_decay"),
        ({"setting": lambda _: {"seed": 1, "out": "x"}}, r"must leave out .*, got out, seed"),
        ({"setting": lambda _: {"validation": None}}, "must leave out .*, got validation"),
        ({"setting": lambda s: {"learning_rate": 0.1 - s}}, r"learning_rate must be a positive.*, got 0.0"),
        (
            {"test": fp.LabelledData(torch.ones(2, 4), torch.tensor([0, 3]))},
            "test must be samples that the network takes: .* have 4 classes",
        ),
        (
            {"test": fp.LabelledData(torch.ones(2, 5), torch.tensor([0, 1]))},
            r"test must be samples of shape \(5,\) for \(4,\) in training that the network takes",
        ),
        ({"criterion": "accuracy"}, r"criterion must be one of 'loss', 'error'.*, got 'accuracy'"),
    ],
)
def test_unsuitable_arguments_are_refused_before_the_first_training(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train", None)
    with pytest.raises(ValueError, match=message):
        tune(mlp((4,), classes=3), clusters(), **QUICK | settings)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, "network must be an nn.Module, or a function seed -> nn.Module .*, got None"),
        ("mlp", "network must be .*, got 'mlp'"),
        (torch.nn.Flatten, "network must be .*, got <class .*Flatten'>"),
        (lambda _: None, "network must be .*, got a function that returned a NoneType"),
    ],
)
def test_what_is_no_network(network: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tune(network, clusters(), **QUICK)


def test_property_test_data_of_another_shape_that_the_network_takes() -> None:
    pooled = torch.nn.Sequential(torch.nn.Unflatten(1, (1, -1)), torch.nn.AdaptiveAvgPool1d(4), torch.nn.Flatten())
    network = torch.nn.Sequential(pooled, mlp((4,), classes=3))
    test = fp.LabelledData(torch.ones(3, 8), torch.tensor([0, 1, 2]))
    assert len(tune(network, clusters(), test=test, **QUICK).test_loss) == 2


def test_property_numpy_numbers() -> None:
    settings = QUICK | {"strengths": np.logspace(-2, -1, 2), "seeds": np.arange(2), "validation": np.float64(0.2)}
    assert_same_table(
        tune(mlp((4,), classes=3), clusters(), **settings), tune(mlp((4,), classes=3), clusters(), **QUICK)
    )
