"""Functional margins and scores."""

import math

import numpy as np
import pytest
import torch

import flatprobe as fp
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched

DATA = cases.data_for((1, 8, 8))


def affine_data(samples: int = 40) -> tuple[cases.Affine, fp.LabelledData]:
    model = cases.affine()
    data = cases.data_for((7,), samples=samples, classes=5)
    return model, data


def test_closed_form_margins_of_an_affine_network() -> None:
    model, data = affine_data()
    logits = (data.inputs.double() @ model.weight.T + model.bias).detach().numpy()
    margins = [z[y] - max(np.delete(z, y)) for z, y in zip(logits, data.labels.tolist(), strict=True)]
    np.testing.assert_allclose(fp.functional_margins(model, data), margins, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fp.scores(model, data, outputs="logits"), np.sqrt(2) * np.array(margins), atol=1e-9)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = [math.sqrt(2) * min(q[y] - np.delete(q, y)) for q, y in zip(p, data.labels.tolist(), strict=True)]
    np.testing.assert_allclose(fp.scores(model, data), expected, rtol=0, atol=1e-9)


def test_closed_form_margins_of_negative_logits() -> None:
    model = cases.Affine(torch.zeros(3, 1, dtype=torch.float64), torch.tensor([-5.0, -2.0, -9.0], dtype=torch.float64))
    data = fp.LabelledData(torch.zeros(3, 1), torch.tensor([0, 1, 2]))
    assert fp.functional_margins(model, data).values.tolist() == [-3.0, 3.0, -7.0]


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_negative_exactly_where_misclassified(name: str) -> None:
    model = cases.NETWORKS[name]()
    margins = fp.functional_margins(model, DATA)
    wrong = model(DATA.inputs.double()).argmax(1) != DATA.labels
    assert torch.equal(margins.values < 0, wrong)
    assert margins.negative == float(wrong.double().mean()) == fp.EmpiricalRisk(model, DATA)().error
    assert torch.equal(fp.scores(model, DATA).values < 0, wrong)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_and_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()
    assert_model_untouched(model, lambda: (fp.functional_margins(model, DATA), fp.scores(model, DATA)))
    for probe in (fp.functional_margins, fp.scores):
        assert_batch_size_invariant(lambda data, size, probe=probe: probe(model, data, batch_size=size).values, DATA)


def test_result_is_an_array_a_frame_and_a_record(tmp_path) -> None:
    model, data = affine_data()
    margins = fp.functional_margins(model, data)
    assert margins.values.dtype == torch.float64
    assert margins.values.device.type == "cpu"
    array = np.asarray(margins)
    assert array.shape == (40,)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 99
    frame = margins.to_frame()
    assert list(frame.columns) == ["sample", "label", "value"]
    assert frame["value"].tolist() == margins.values.tolist()
    assert frame["label"].tolist() == data.labels.tolist()
    loaded = fp.load(fp.save(margins, tmp_path / "margins.parquet"))
    assert torch.equal(loaded.values, margins.values)
    assert torch.equal(loaded.labels, margins.labels)
    assert type(loaded) is type(margins)
    assert len(loaded) == 40
    summary = margins.summary()
    assert summary["mean"] == pytest.approx(array.mean())
    assert summary["standard_error"] == pytest.approx(array.std(ddof=1) / 40**0.5)
    assert summary["median"] == pytest.approx(np.median(array))
    assert (summary["min"], summary["max"]) == (array.min(), array.max())


def test_unknown_outputs() -> None:
    with pytest.raises(ValueError, match=r"outputs must be one of 'softmax', 'logits'.*, got 'probabilities'"):
        fp.scores(cases.mlp(), DATA, outputs="probabilities")


def test_a_value_that_is_not_finite_names_its_sample() -> None:
    """The slope of a root is infinite at 0, where its value is finite."""

    class Root(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sqrt()

    inputs = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).double() + 0.1
    inputs[13, 1] = 0.0
    data = fp.LabelledData(inputs, torch.arange(20) % 3)
    with pytest.raises(ValueError, match="the value of sample 13 must be finite, got nan at finite logits"):
        fp.jacobian_norms(Root().eval(), data, batch_size=8)
