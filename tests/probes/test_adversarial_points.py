"""Adversarial points: projections on affine networks, the distances of the geometric margins, records."""

import math

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.attacks import MINIMUM_NORM
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched


def own_labels(model: nn.Module, data: fp.LabelledData) -> fp.LabelledData:
    """The data with the network's own labels, but for the first two, which are wrong."""
    with torch.no_grad():
        logits = model(data.inputs.to(next(model.parameters()).dtype))
    labels = logits.argmax(1)
    labels[:2] = (labels[:2] + 1) % logits.shape[1]
    return fp.LabelledData(data.inputs, labels, classes=logits.shape[1])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_closed_form_points_of_an_affine_network_are_projections(norm: str) -> None:
    model = cases.affine()
    data = own_labels(model, cases.data_for((7,), classes=5))
    found = fp.adversarial_points(model, data, norm=norm)
    for k, (x, label) in enumerate(zip(data.inputs.double(), data.labels, strict=True)):
        if k < 2:  # misclassified
            assert torch.equal(found.points[k], x.double())
            assert float(found.distances[k]) == 0
            continue
        lead = model.weight[label] @ x + model.bias[label] - model.weight @ x - model.bias
        normals = model.weight[label] - model.weight
        lengths = normals.norm(dim=1) if norm == "l2" else normals.abs().sum(1)
        near = int((lead / lengths).index_fill(0, label, math.inf).argmin())
        direction = normals[near] / lengths[near] if norm == "l2" else normals[near].sign()
        expected = x - lead[near] / lengths[near] * direction
        torch.testing.assert_close(found.points[k], expected.detach(), rtol=0, atol=1e-6)
        assert int(found.predicted[k]) == near != int(label)
    assert found.summary() == {
        "median_distance": pytest.approx(float(found.distances.quantile(0.5))), "misclassified": 2, "not_reached": 0,
    }  # fmt: skip


@pytest.mark.parametrize("attack", MINIMUM_NORM)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_slow_reference_distances_are_those_of_the_geometric_margins(attack: str, norm: str) -> None:
    model = cases.cnn().float()
    data = own_labels(model, cases.data_for((1, 8, 8), samples=20))
    given = {"norm": norm, "box": (-9.0, 9.0), "steps": 6, "seed": 4, "batch_size": 8}
    found = fp.adversarial_points(model, data, attack=attack, **given)
    margins = fp.geometric_margins(model, data, lower=(), upper=(attack,), **given)
    assert torch.equal(found.distances, margins.uppers[attack])  # to the last bit
    assert int(found.reached.sum()) > 10
    moved = found.points.double() - data.inputs.float().double()
    own = torch.linalg.vector_norm(moved.flatten(1), 2 if norm == "l2" else math.inf, 1)
    torch.testing.assert_close(own[found.reached], found.distances[found.reached], rtol=1e-12, atol=0)
    with torch.no_grad():
        assert torch.equal(model(found.points).argmax(1), found.predicted)
    assert torch.equal(found.predicted != data.labels, found.reached)


def test_property_untouched_batch_size_invariant() -> None:
    model = cases.mlp()
    data = own_labels(model, cases.data_for((1, 8, 8), samples=9))
    assert_model_untouched(model, lambda: fp.adversarial_points(model, data, steps=5))

    def points(data: fp.LabelledData, size: int) -> torch.Tensor:
        return fp.adversarial_points(model, data, attack="log_barrier", steps=6, batch_size=size).points

    assert_batch_size_invariant(points, data)


def test_property_points_stay_in_the_box_and_a_point_that_is_not_found_is_the_input() -> None:
    data = fp.LabelledData(torch.rand(6, 4, dtype=torch.float64), torch.zeros(6).long(), classes=2)
    constant = nn.Linear(4, 2).double().eval()
    with torch.no_grad():
        constant.weight.copy_(torch.tensor([[1e-3] * 4, [0.0] * 4]))
        constant.bias.copy_(torch.tensor([9.0, 0.0]))
    found = fp.adversarial_points(constant, data, box=(0.0, 1.0))
    assert found.distances.isinf().all()
    assert torch.equal(found.points, data.inputs)
    assert torch.equal(found.predicted, data.labels)
    assert found.summary()["not_reached"] == 6
    model = cases.mlp()
    images = own_labels(model, cases.data_for((1, 8, 8), samples=12))
    images = fp.LabelledData(images.inputs.clamp(0, 1), images.labels, classes=10)
    low, high = fp.adversarial_points(model, images, box=(0.0, 1.0)).points.aminmax()
    assert float(low) >= 0
    assert float(high) <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_result_survives_the_record(tmp_path, dtype: torch.dtype) -> None:
    model = cases.mlp().to(dtype)
    data = own_labels(model, cases.data_for((1, 8, 8), samples=5))
    found = fp.adversarial_points(model, data, steps=4)
    assert found.points.dtype == dtype
    frame = found.to_frame()
    assert list(frame) == ["sample", "label", "predicted", "distance", "point"]
    assert [len(point) for point in frame["point"]] == [64] * 5
    loaded = fp.load(fp.save(found, tmp_path / "points.parquet"))
    for name in ("points", "distances", "predicted", "labels"):
        assert torch.equal(getattr(loaded, name), getattr(found, name))
        assert getattr(loaded, name).dtype == getattr(found, name).dtype
    assert loaded.settings == found.settings


def test_bad_arguments() -> None:
    model, data = cases.mlp(), cases.data_for((1, 8, 8), samples=3)
    with pytest.raises(ValueError, match=r"attack must be one of.*, got 'pgd'"):
        fp.adversarial_points(model, data, attack="pgd")
    with pytest.raises(ValueError, match=r"norm must be one of.*, got 'l1'"):
        fp.adversarial_points(model, data, norm="l1")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        fp.adversarial_points(model, data, steps=0)
    with pytest.raises(ValueError, match=r"the box \[10, 11\] must contain the data"):
        fp.adversarial_points(model, data, box=(10.0, 11.0))
