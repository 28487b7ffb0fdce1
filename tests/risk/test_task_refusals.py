"""Losses and targets that do not suit a task are refused, with the fix."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from tests.helpers.tasks import drawn, integers, segmentation


def _rows(z: Tensor, t: Tensor) -> Tensor:
    return (z - t).square()


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (
            "squared_error",
            drawn(6, 3),
            r"squared_error takes outputs and labels of one shape, got outputs \(4, 1\) and",
        ),
        ("pixel_cross_entropy", integers(1, 6, 4), "pixel_cross_entropy takes outputs and labels .samples, classes, "),
        ("token_cross_entropy", integers(1, 6, 4), "token_cross_entropy takes outputs and labels .samples, tokens, cl"),
        (
            _rows,
            drawn(6),
            r"compares each of 6 outputs with each of the labels, .*\(6, 1\) and \(6,\).*labels\[:, None\]",
        ),
        ("mse", drawn(6), "loss must be one of .*'squared_error', .*'token_cross_entropy'"),
        (lambda z, _: z.mean(), drawn(6), "returned a scalar for 6 samples"),
        (lambda z, _: (z - z.mean()).square(), drawn(6), "differ by up to .*a function of each sample alone"),
        ("cross_entropy", drawn(6), "class indices, integers of shape .*loss='squared_error'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_losses_that_do_not_suit_the_task_are_refused(loss: Any, targets: Tensor, message: str) -> None:
    model = nn.Linear(3, 1).double().eval()
    with pytest.raises(ValueError, match=message):
        fp.EmpiricalRisk(model, fp.LabelledData(drawn(6, 3), targets), loss=loss)


def test_labels_beyond_the_classes_and_samples_without_any_are_named() -> None:
    case = segmentation()
    masks = case.data.labels.clone()
    masks[2, 0, 0] = 7
    with pytest.raises(ValueError, match=r"label of sample 2 is 7; expected 0 to 2, .* loss={'name': 'pixel_cross_ent"):
        fp.EmpiricalRisk(case.model, fp.LabelledData(case.data.inputs, masks), loss=case.loss)
    masks[2] = 255
    risk = fp.EmpiricalRisk(case.model, fp.LabelledData(case.data.inputs, masks), loss=case.loss)
    for use in (risk, risk.gradient, lambda: fp.flatness_radius(risk)):
        with pytest.raises(ValueError, match=r"of sample 2 is nan .*drop a sample of which no pixel or token counts"):
            use()


def test_outputs_without_a_row_per_sample_are_refused() -> None:
    class Pooled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[1:]

    with pytest.raises(ValueError, match="returns 5 rows for a batch of 6 samples; expected one row per sample"):
        fp.EmpiricalRisk(Pooled(3, 1).double().eval(), fp.LabelledData(drawn(6, 3), drawn(6)), loss="squared_error")


@pytest.mark.parametrize(
    ("loss", "layer", "targets"),
    [
        ("binary_cross_entropy", nn.Sigmoid(), drawn(6) > 0),
        ("pixel_cross_entropy", nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Softmax(1)), integers(3, 6, 2)),
        ("token_cross_entropy", nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Softmax(2)), integers(3, 6, 2)),
    ],
)
def test_probabilities_in_place_of_logits_are_warned_of(loss: str, layer: nn.Module, targets: Tensor) -> None:
    outputs = 1 if loss == "binary_cross_entropy" else 6
    model = nn.Sequential(nn.Linear(3, outputs), layer).double().eval()
    with pytest.warns(UserWarning, match="between 0 and 1 throughout|probabilities"):
        fp.EmpiricalRisk(model, fp.LabelledData(drawn(6, 3), targets.double() if outputs == 1 else targets), loss=loss)


def test_tokens_as_their_own_targets_are_warned_of_without_a_shift() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 5)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.table(input_ids)

    ids, model = integers(5, 6, 4), Tokens().double().eval()
    padded = ids.index_fill(1, torch.tensor([3]), -100)
    for inputs, targets in ((ids, ids), ({"input_ids": ids}, padded)):
        with pytest.warns(UserWarning, match=r'give the loss \{"name": "token_cross_entropy", "shift": true\}'):
            fp.EmpiricalRisk(model, fp.LabelledData(inputs, targets), loss="token_cross_entropy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shifted = {"name": "token_cross_entropy", "shift": True}
        fp.EmpiricalRisk(model, fp.LabelledData(ids, ids), loss=shifted)
        fp.EmpiricalRisk(model, fp.LabelledData(ids, (ids + 1) % 5), loss="token_cross_entropy")


def test_a_loss_of_one_output_and_integer_labels_names_the_fix() -> None:
    data = fp.LabelledData(drawn(6, 3), integers(2, 6))
    with pytest.raises(ValueError, match=r"single output, give LabelledData labels.float\(\) in the shape of the"):
        fp.EmpiricalRisk(nn.Linear(3, 1).double().eval(), data, loss=nn.BCEWithLogitsLoss())


def test_the_targets_of_a_binary_cross_entropy_are_probabilities() -> None:
    network, inputs = nn.Linear(3, 2).double().eval(), drawn(6, 3)
    signs = drawn(6, 2).sign()
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got -1 to 1\. Pass \(targets \+ 1\) / 2"):
        fp.EmpiricalRisk(network, fp.LabelledData(inputs, signs), loss="binary_cross_entropy")
    data = fp.LabelledData(inputs, (signs + 1) / 2)
    expected = nn.functional.binary_cross_entropy_with_logits(network(inputs), data.labels).item()
    assert fp.EmpiricalRisk(network, data, loss="binary_cross_entropy")().loss == pytest.approx(
        float(expected), rel=1e-9
    )
