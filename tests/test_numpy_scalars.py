"""NumPy's scalars stand for Python's in every public argument, and come back from records as numbers."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import flatprobe as fp
from tests.helpers import cases
from tests.helpers.properties import assert_same_state

DATA = cases.data_for((7,), samples=12, classes=5)
FLOATS, INTEGERS = (np.float32, np.float64), (np.int32, np.int64, np.uint8)


def probes(real: Callable[[float], Any], whole: Callable[[int], Any]) -> dict[str, Any]:
    """Every number that a public function takes, made by these."""
    model, other = cases.affine(), cases.affine(seed=1)
    risk = fp.EmpiricalRisk(model, DATA, batch_size=whole(5))
    return {
        "radius": fp.flatness_radius(
            risk, epsilon=real(0.25), directions=whole(2), max_radius=real(64.0), rtol=real(0.125), verify=whole(1),
            seed=whole(3),
        ),
        "line": fp.interpolate(risk, [model, other], fp.segment(steps=whole(3))),
        "triangle": fp.interpolate(risk, [model, other, model], fp.simplex(whole(3), steps=whole(2))),
        "margins": fp.functional_margins(model, DATA, batch_size=whole(5)),
        "scores": fp.scores(model, DATA, batch_size=whole(5)),
        "jacobian": fp.jacobian_norms(model, DATA, batch_size=whole(5)),
        "robustness": fp.gaussian_robustness(
            model, DATA, gammas=[real(0.0), real(0.5)], draws=whole(2), seed=whole(1), batch_size=whole(5)
        ),
    }  # fmt: skip


@pytest.mark.parametrize("real", FLOATS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("whole", INTEGERS, ids=lambda kind: kind.__name__)
def test_probes_give_the_same_results_and_records(real: Any, whole: Any, tmp_path) -> None:
    found, expected = probes(real, whole), probes(float, int)
    for name, result in found.items():
        assert result.to_frame().equals(expected[name].to_frame()), name
        loaded = fp.load(fp.save(result, tmp_path / f"{name}.parquet"))
        assert loaded.settings["arguments"] == json.loads(json.dumps(expected[name].settings["arguments"])), name


def test_an_array_is_a_grid() -> None:
    result = fp.gaussian_robustness(cases.affine(), DATA, gammas=list(np.linspace(0, 1, 3)), draws=1)
    assert result.gammas.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("real", FLOATS, ids=lambda kind: kind.__name__)
def test_bands_data_training_and_comparisons_take_them(real: Any, tmp_path) -> None:
    model, whole = cases.affine(), np.int64
    robustness = probes(float, int)["robustness"]
    assert all(map(torch.equal, robustness.band(real(0.75)), robustness.band(0.75)))
    data = fp.LabelledData(DATA.inputs, DATA.labels, classes=whole(5)).with_random_labels(real(0.5), seed=whole(2))
    assert torch.equal(data.labels, DATA.with_random_labels(0.5, seed=2).labels)
    assert len(data.head(whole(4))) == 4
    assert [len(batch.labels) for batch in data.batches(whole(5))] == [5, 5, 2]
    assert len(fp.load_data("digits", limit=whole(3))) == 3

    def trained(real: Any, whole: Any, out: Any) -> fp.TrainingRun:
        return fp.train(
            model, data, epochs=whole(2), learning_rate=real(0.125), momentum=real(0.5), weight_decay=real(0.25),
            batch_size=whole(4), seed=whole(1), save_every=real(0.0), threads=whole(1), out=out,
            schedule={"name": "step", "stages": [(real(1.0), whole(1)), (real(0.5), whole(1))]},
        )  # fmt: skip

    first, second = trained(real, whole, tmp_path / "run"), trained(float, int, None)
    assert torch.equal(first.model.weight, second.model.weight)
    assert trained(float, int, tmp_path / "run").epochs == 2  # the same run, found again
    assert first.settings["settings"] == second.settings["settings"]
    comparison = fp.compare({"one": model}, data, probes=["functional_margins"], seed=whole(1))
    assert list(comparison.results) == ["functional_margins"]
    assert fp.models.mlp((whole(7),), widths=(whole(4),), classes=whole(5), seed=whole(1))(DATA.inputs).shape == (12, 5)
    assert fp.Normalised(model, real(0.5), real(0.25)).normalise.std.tolist() == [0.25]


@pytest.mark.parametrize("real", FLOATS, ids=lambda kind: kind.__name__)
def test_losses_and_optimizers_with_arguments_take_them(real: Any, tmp_path) -> None:
    def trained(real: Any, out: Any) -> fp.TrainingRun:
        return fp.train(
            cases.affine(), DATA, epochs=2, out=out,
            objective={"name": "smoothed_maximum", "epsilon": real(0.5)},
            optimizer={"name": "sgdl", "noise": real(0.25), "decay": real(1.0)},
            schedule={"name": "inverse", "decay": real(0.5)},
        )  # fmt: skip

    runs = [trained(kind, tmp_path / kind.__name__) for kind in (real, float)]
    assert runs[0].settings["settings"] == runs[1].settings["settings"]
    assert_same_state(runs[0].model, runs[1].model)
    risk = fp.EmpiricalRisk(runs[0].model, DATA, {"name": "smoothed_maximum", "epsilon": real(0.5)})
    assert type(risk.describe()["loss"]["epsilon"]) is float
