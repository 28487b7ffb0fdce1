"""tune_methods: paired differences (closed form), the same trainings as `tune` (slow reference), refusals."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import flatprobe as fp
from flatprobe.models import mlp
from flatprobe.studies.methods import TunedMethods
from flatprobe.training.tuning.result import Tuning
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters

POOL = clusters(90, key="pool").with_random_labels(0.3, seed=2)
TEST = clusters(60, key="test")
SHARED = {"test": TEST, "seeds": (3, 1), "epochs": 2, "learning_rate": 0.1, "batch_size": 10}
METHODS = {
    "plain": {},
    "decay": {"setting": "weight_decay", "strengths": (0.01, 0.3)},
    "jacobian": {"penalty": "jacobian_frobenius", "strengths": (0.1, 1.0), "learning_rate": 0.05},
}


def network(seed: int) -> torch.nn.Module:
    return mlp((4,), widths=(5,), classes=3, seed=seed)


def drawn(seed: int) -> fp.LabelledData:
    return POOL.balanced(10, seed)


@pytest.fixture(scope="module")
def tuned() -> TunedMethods:
    return fp.tune_methods(network, drawn, METHODS, **SHARED)


def test_slow_reference_each_method_is_its_own_tuning_on_the_training_set_of_each_seed(tuned: TunedMethods) -> None:
    own = {"setting": "weight_decay", "strengths": (0.01, 0.3)}
    alone = fp.tune(network, drawn, **own, **SHARED)
    assert tuned.tunings["decay"].to_frame().equals(alone.to_frame())
    for name, rate in (("plain", 0.1), ("jacobian", 0.05)):
        tuning = tuned.tunings[name]
        for run, seed in zip(tuning.runs, (3, 1), strict=True):
            extra = {"penalties": [(tuning.strength, "jacobian_frobenius")]} if name == "jacobian" else {}
            arguments = {"epochs": 2, "learning_rate": rate, "batch_size": 10, "seed": seed, **extra}
            assert_same_state(run.model, fp.train(network(seed), drawn(seed), **arguments).model)
            assert run.settings["data"]["fingerprint"] == drawn(seed).fingerprint
            held = tuning.settings["subject"]["data"][str(seed)]
            assert held["fingerprint"] == drawn(seed).fingerprint


def test_one_table_with_a_column_for_the_method(tuned: TunedMethods) -> None:
    frame, table = tuned.to_frame(), tuned.table()
    assert frame["method"].value_counts().to_dict() == {"plain": 4, "decay": 6, "jacobian": 6}
    assert list(table["method"]) == list(METHODS)
    assert table["strength"].iloc[0] == 0.0
    assert not table["at_edge"].iloc[0]
    assert list(table["at_edge"].iloc[1:]) == [True, True]  # each grid has two ends and nothing between
    final = frame[(frame["stage"] == "final") & (frame["method"] == "decay")]
    assert table["test_error"].iloc[1] == pytest.approx(final["test_error"].mean(), rel=1e-12)


def with_errors(errors: dict[str, list[float]], seeds: list[int]) -> TunedMethods:
    rows = {
        name: [{"stage": "final", "seed": seed, "test_error": error} for seed, error in zip(seeds, own, strict=True)]
        for name, own in errors.items()
    }
    return TunedMethods({name: Tuning(rows=own, settings={}) for name, own in rows.items()})


def test_closed_form_paired_differences_and_students_interval() -> None:
    errors = {"a": [0.3, 0.1, 0.2], "z": [0.1, 0.2, 0.6], "b": [0.2, 0.5, 0.1]}
    found = with_errors(errors, [5, 0, 2]).differences("b", level=0.9).set_index("method")
    assert list(found.index) == ["a", "z"]
    for name in ("a", "z"):
        expected = stats.ttest_rel(errors[name], errors["b"])
        interval = expected.confidence_interval(0.9)
        mean = np.mean(np.subtract(errors[name], errors["b"]))
        assert found.loc[name, "mean"] == pytest.approx(mean, abs=1e-12)
        assert found.loc[name, ["lower", "upper"]].tolist() == pytest.approx([interval.low, interval.high], abs=1e-12)
    assert list(found["seeds"]) == [3, 3]


def test_one_seed_has_no_interval() -> None:
    found = with_errors({"a": [0.3], "b": [0.1]}, [0]).differences("b")
    assert found["mean"].tolist() == pytest.approx([0.2])
    assert math.isnan(found["lower"].iloc[0])


def test_a_folder_per_method_is_resumed(tmp_path) -> None:
    methods = {"plain": {}, "weight/decay": {"setting": "weight_decay", "strengths": (0.1, 1.0)}}
    first = fp.tune_methods(network, drawn, methods, out=tmp_path, **SHARED)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.safetensors")}
    again = fp.tune_methods(network, drawn, methods, out=tmp_path, **SHARED)
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "weight%2Fdecay"}
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.safetensors")}
    assert len(times) == 4 + 6
    assert again.to_frame().equals(first.to_frame())


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({}, "methods must hold at least one method"),
        ({"a": {"seeds": (1,), "test": TEST}}, "'a' must leave out what all methods share, got test, seeds"),
        ({"a": {"setting": "weight_decay", "strengths": (1.0,)}}, "at least two different numbers"),
        ({"a": {"setting": "dropout"}}, "setting must name an argument"),
    ],
)
def test_refusals(methods, message) -> None:
    with pytest.raises(ValueError, match=message):
        fp.tune_methods(network, drawn, methods, **SHARED)


def test_refusals_of_differences(tuned: TunedMethods) -> None:
    with pytest.raises(ValueError, match=r"baseline must be one of .*, got 'none'"):
        tuned.differences("none")
    with pytest.raises(ValueError, match=r"figure must be one of 'test_error', .*, got 'seed'"):
        tuned.differences("plain", "seed")
    with pytest.raises(ValueError, match="level must be a confidence between 0 and 1, got 95"):
        tuned.differences("plain", level=95)
