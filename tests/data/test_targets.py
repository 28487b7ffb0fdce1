"""Targets of any kind in LabelledData: what they become, and what needs class indices."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp

X = torch.arange(12.0).reshape(4, 3)
TARGETS = {
    "regression": torch.tensor([0.5, -1.0, 2.0, 0.0]),
    "several outputs": torch.linspace(-1, 1, 8).reshape(4, 2).double(),
    "attributes": torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0]]),
    "tokens": torch.tensor([[1, 2, -100], [3, 4, 5], [0, -100, -100], [7, 8, 9]]),
    "pixels": torch.arange(16).reshape(4, 2, 2) % 3,
}


def streamed(targets: Tensor) -> fp.LabelledData:
    return fp.LabelledData.from_dataset(torch.utils.data.TensorDataset(X, targets))


@pytest.mark.parametrize("make", [lambda y: fp.LabelledData(X, y), streamed], ids=["memory", "stream"])
@pytest.mark.parametrize("kind", TARGETS)
def test_slow_reference_targets_are_the_given_rows(make: Any, kind: str) -> None:
    targets = TARGETS[kind]
    data = make(targets)
    assert data.classes is None
    assert torch.equal(data.labels, targets)
    assert data.labels.dtype == targets.dtype
    assert [batch.labels.tolist() for batch in data.batches(3)] == [targets[:3].tolist(), targets[3:].tolist()]
    assert torch.equal(data.gather(torch.tensor([2, 0]))[1], targets[[2, 0]])
    assert torch.equal(data.head(3).labels, targets[:3])
    assert torch.equal(data.subset(torch.tensor([3, 1])).labels, targets[[3, 1]])
    record = data.describe()
    assert record["classes"] is None
    assert record["targets"] == {"shape": list(targets.shape[1:]), "dtype": str(targets.dtype)[6:]}
    changed = targets.clone()
    changed[3] += 1
    assert make(changed).fingerprint != data.fingerprint
    assert f"{str(targets.dtype)[6:]} targets of {tuple(targets.shape[1:])}" in repr(data)


def test_property_targets_are_copied_and_arrays_taken() -> None:
    given = TARGETS["regression"].clone()
    data = fp.LabelledData(X, given)
    given[0] = 9.0
    assert float(data.labels[0]) == 0.5
    own = fp.LabelledData(X.numpy(), given.numpy())
    assert torch.equal(own.inputs, X)
    assert torch.equal(own.labels, given)
    fixed = X.numpy()[::-1].astype(">f4")
    fixed.flags.writeable = False
    assert torch.equal(fp.LabelledData({"x": fixed}, np.array([0, 1, 1, 2])).inputs["x"], X.flip(0))
    assert fp.LabelledData(X, np.array([0, 1, 1, 2])).classes == 3
    assert fp.LabelledData(X, torch.ones(4, 2, dtype=torch.bool)).labels.dtype == torch.int64


@pytest.mark.parametrize("given", [torch.tensor([0.0, 1, 1, 0]), torch.tensor([[0], [1], [1], [0]]) > 0])
def test_property_zeros_and_ones_serve_as_classes(given: Tensor) -> None:
    data = fp.LabelledData(X, given)
    assert data.classes is None
    own = data.as_classes()
    assert (own.labels.tolist(), own.labels.dtype, own.classes) == ([0, 1, 1, 0], torch.int64, 2)
    assert fp.functional_margins(nn.Linear(3, 2).eval(), data).labels.tolist() == [0, 1, 1, 0]
    assert own.as_classes() is own
    assert data.balanced(1).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("targets", "fix"),
    [
        (
            torch.tensor([0.0, 1, 2, 0]),
            r"float32 of shape \(4,\): labels.long\(\) are .*, unless they are the targets",
        ),
        (torch.tensor([[0], [5], [1], [2]]), r"labels.long\(\).squeeze\(1\) are the class indices$"),
        (torch.eye(4), r"one-hot rows: labels.argmax\(1\) are the class indices"),
        (TARGETS["regression"], "as for a regression, .*loss='squared_error'"),
        (TARGETS["attributes"], "as for several attributes, .*loss='binary_cross_entropy'"),
        (TARGETS["tokens"], "as for tokens, .*loss='token_cross_entropy'"),
        (TARGETS["pixels"], "as for pixels, .*loss='pixel_cross_entropy'"),
    ],
)
def test_other_targets_are_refused_where_classes_are_needed_with_the_right_fix(targets: Tensor, fix: str) -> None:
    data, model = fp.LabelledData(X, targets), nn.Linear(3, 4).eval()
    uses: list[Any] = [
        lambda: data.balanced(1),
        data.with_random_labels,
        lambda: data.with_class_names(["a", "b"]),
        lambda: fp.functional_margins(model, data),
        lambda: fp.scores(model, data),
        lambda: fp.jacobian_norms(model, data),
        lambda: fp.jacobian_maximum(model, data),
        lambda: fp.geometric_margins(model, data),
        lambda: fp.gaussian_robustness(model, data, gammas=[0.1]),
        lambda: fp.smoothed_certificate(model, data, sigma=0.1),
        lambda: fp.adversarial_accuracy(model, data, budgets=[0.1]),
        lambda: fp.adversarial_points(model, data),
        lambda: fp.audit(model, data),
        lambda: fp.bounds.held_out(model, data),
        lambda: fp.train(model, data, epochs=1),
        lambda: fp.EmpiricalRisk(model, data),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"labels must be class indices, integers of shape \(samples,\): .*" + fix):
            use()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_targets_that_are_not_finite_are_refused(bad: float) -> None:
    targets = torch.zeros(4, 2)
    targets[2, 1] = bad
    with pytest.raises(ValueError, match=r"target of sample 2 must be finite, got NaN or infinity. Repair or"):
        fp.LabelledData(X, targets)
    with pytest.raises(ValueError, match="target of sample 2 must be finite"):
        _ = streamed(targets).labels
    with pytest.raises(ValueError, match=r"labels\[3\] is 1.0, but item 3 of the TensorDataset has label 0.0"):
        fp.LabelledData.from_dataset(torch.utils.data.TensorDataset(X, torch.zeros(4)), labels=torch.eye(4)[3])
