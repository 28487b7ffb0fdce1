"""The edges of the grid, the folder and the record of a tuning, and what it refuses."""

import json
import math

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


def test_edges():
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


def test_folders_resume_and_the_record(tmp_path, monkeypatch, capsys):
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
        ({"setting": None}, "setting is None and penalty None; expected one of them"),
        ({"penalty": "jacobian"}, "setting is 'weight_decay' and penalty 'jacobian'; expected one of them"),
        ({"setting": "dropout"}, "setting is 'dropout'; expected one of weight_decay, learning_rate, momentum"),
        ({"weight_decay": 0.1}, "setting is 'weight_decay', which is 0.1 as well"),
        ({"setting": lambda strength: strength}, r"setting\(0.01\) is a float; expected a dict"),
        ({"strengths": (0.1,)}, r"strengths are \[0.1\]; expected at least two different ones"),
        ({"strengths": (0.1, 0.1)}, "expected at least two different ones"),
        ({"strengths": (0.1, -1)}, "each finite and at least 0"),
        ({"strengths": (0.1, math.nan)}, "each finite and at least 0"),
        ({"validation": 0.0}, "validation is 0.0 of 37 samples; expected a fraction"),
        ({"validation": 1.5}, "validation is 1.5 of 37 samples"),
        ({"validation": 0.01}, "leaves at least one sample on either side"),
        ({"seeds": ()}, r"seeds are \[\]; expected at least one"),
        ({"seeds": (1, 1)}, r"seeds are \[1, 1\]; .* different ones"),
        ({"seed": 3}, r"seed is 3; expected seeds=\(\.\.\.\)"),
        ({"seeds": 3}, r"seeds is 3; expected a list of numbers, such as seeds=\(0, 1\)"),
        ({"seeds": (0.5,)}, r"seeds are \[0.5\]; expected whole numbers"),
        ({"strengths": 0.1}, "strengths is 0.1; expected a list of numbers"),
        ({"strengths": "12"}, "strengths is '12'; expected a list of numbers"),
        ({"strengths": (0.1, "1")}, r"strengths are \[0.1, '1'\]; expected numbers"),
        ({"validation": None}, "validation is None of 37 samples; expected a fraction"),
        ({"validation": "0.2"}, "validation is '0.2' of 37 samples"),
        ({"setting": 3}, "setting is 3; expected one of weight_decay, learning_rate, momentum"),
        ({"progress": "no"}, "progress is 'no'; expected one of"),
        ({"penalties": "spectral_norm"}, "penalties is 'spectral_norm'; expected a list of penalties"),
        ({"penalties": None, "setting": None, "penalty": "spectral_norm"}, "penalties is None; expected a list"),
        ({"setting": "momentum", "strengths": (0.5, 1.0)}, "momentum is 1.0; expected at least 0 and below 1"),
        ({"setting": None, "penalty": "ridge"}, "the penalty is 'ridge'; expected one of"),
        ({"widths": 3}, "at strength 0.01 train is given widths; expected arguments that it has"),
        (
            {"setting": lambda _: {"penalties": []}, "penalties": []},
            r"setting\(0.01\) gives penalties, and so does the",
        ),
        ({"setting": lambda _: {"weight_decay": 1.0}, "weight_decay": 0.1}, "gives weight_decay, and so does the call"),
        ({"setting": lambda _: {"seed": 1, "out": "x"}}, r"gives out, seed, which tune gives itself; expected other"),
        ({"setting": lambda _: {"validation": None}}, r"setting\(0.01\) gives validation, which tune gives itself"),
        ({"setting": lambda s: {"learning_rate": 0.1 - s}}, "learning_rate is 0.0; expected a positive"),
        ({"test": fp.LabelledData(torch.ones(2, 4), torch.tensor([0, 3]))}, "suit the test data: .* have 4 classes"),
        (
            {"test": fp.LabelledData(torch.ones(2, 5), torch.tensor([0, 1]))},
            r"test data have samples of shape \(5,\), and those to train on \(4,\); expected a shape that the network",
        ),
        ({"criterion": "accuracy"}, "criterion is 'accuracy'; expected one of 'loss', 'error'"),
    ],
)
def test_unsuitable_arguments_are_refused_before_the_first_training(settings, message, monkeypatch):
    monkeypatch.setattr(module, "train", None)
    with pytest.raises(ValueError, match=message):
        tune(mlp((4,), classes=3), clusters(), **QUICK | settings)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, "the network is None; expected an nn.Module, or a function seed -> nn.Module"),
        ("mlp", "the network is 'mlp'; expected"),
        (torch.nn.Flatten, "the network is <class .*Flatten'>; expected"),
        (lambda _: None, r"the function network\(0\) returned a NoneType; expected an nn.Module"),
    ],
)
def test_what_is_no_network(network, message):
    with pytest.raises(TypeError, match=message):
        tune(network, clusters(), **QUICK)


def test_test_data_of_another_shape_that_the_network_takes():
    pooled = torch.nn.Sequential(torch.nn.Unflatten(1, (1, -1)), torch.nn.AdaptiveAvgPool1d(4), torch.nn.Flatten())
    network = torch.nn.Sequential(pooled, mlp((4,), classes=3))
    test = fp.LabelledData(torch.ones(3, 8), torch.tensor([0, 1, 2]))
    assert len(tune(network, clusters(), test=test, **QUICK).test_loss) == 2


def test_numpy_numbers():
    settings = QUICK | {"strengths": np.logspace(-2, -1, 2), "seeds": np.arange(2), "validation": np.float64(0.2)}
    assert_same_table(
        tune(mlp((4,), classes=3), clusters(), **settings), tune(mlp((4,), classes=3), clusters(), **QUICK)
    )
