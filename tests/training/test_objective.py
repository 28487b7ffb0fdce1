"""Objectives: closed forms on two samples, gradients, bounds (property), smoothed values far out, refusals."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.functional.losses import LOSSES, per_sample_loss
from flatprobe.models import mlp
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.training import TrainingRun, train
from flatprobe.training.forward.labels import mean_loss
from flatprobe.training.objective import Objective
from flatprobe.utils.rng import generator

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def objective(loss):
    return lambda logits, labels: per_sample_loss(loss)(logits, labels).mean()


SMOOTHED = {"name": "smoothed_maximum", "epsilon": 0.25}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cross_entropy",
            (math.log(math.exp(2) + 1 + math.exp(1)) - 2 + math.log(math.exp(0.5) + 2)) / 2,
        ),
        ("squared", ((1 + 0 + 1) + (0.25 + 1 + 0)) / 2),
        ("squared_signs", ((1 + 1 + 4) + (2.25 + 1 + 1)) / 2),
        ("hinge", (0.0 + 1.5) / 2),
        ("maximum", (0.0 + 0.5) / 2),
        (
            SMOOTHED,
            (math.log(math.exp(8) + 1 + math.exp(4)) / 4 - 2 + math.log(math.exp(2) + 2) / 4) / 2,
        ),
    ],
)
def test_closed_forms(name: str, expected: Any) -> None:
    value = objective(name)(LOGITS, LABELS)
    assert value.shape == ()
    assert float(value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("squared", [[2.0, 0.0, 2.0], [1.0, -2.0, 0.0]]),
        ("squared_signs", [[2.0, 2.0, 4.0], [3.0, -2.0, 2.0]]),
        (
            "hinge",
            [[-0.0, 0.0, 0.0], [1.0, -1.0, 0.0]],
        ),  # the first margin is 1: its hinge is at the bend, where it is 0
        ("maximum", [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]]),
        (SMOOTHED, None),
    ],
)
def test_gradients_closed_form(name: str, expected: Any) -> None:
    logits = LOGITS.clone().requires_grad_()
    objective(name)(logits, LABELS).backward()
    if expected is None:  # softmax(z / epsilon) - e_y
        weights = (LOGITS / SMOOTHED["epsilon"]).exp()
        expected = weights / weights.sum(1, keepdim=True) - torch.eye(3, dtype=torch.float64)[LABELS]
    expected = torch.as_tensor(expected, dtype=torch.float64)
    if name == "hinge":
        logits.grad[0], expected[0] = 0, 0  # either one-sided derivative will do at the bend
    torch.testing.assert_close(logits.grad, expected / 2, rtol=1e-12, atol=1e-12)


def test_closed_form_tied_logits_share_the_subgradient() -> None:
    logits = torch.ones(1, 4, dtype=torch.float64, requires_grad=True)
    objective("maximum")(logits, torch.tensor([2])).backward()
    assert logits.grad.tolist() == [[0.25, 0.25, -0.75, 0.25]]


@pytest.mark.parametrize("loss", [*(name for name in LOSSES if name != "smoothed_maximum"), SMOOTHED], ids=str)
def test_slow_reference_gradients_are_those_of_the_values(loss: Any) -> None:
    logits = torch.randn(5, 4, generator=generator("logits"), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda z: per_sample_loss(loss)(z, labels), logits)


@pytest.mark.parametrize("epsilon", [1e-3, 0.2, 1.0, 5.0])
def test_closed_form_smoothing_lies_where_the_corrected_bounds_say(epsilon: Any) -> None:
    """max <= smoothed <= max + epsilon log C (docs, Definitions), and at epsilon = 1 it is the cross-entropy."""
    logits = 10 * torch.randn(200, 7, generator=generator("logits"), dtype=torch.float64)
    labels = torch.arange(200) % 7
    rough = per_sample_loss("maximum")(logits, labels)
    smooth = per_sample_loss({"name": "smoothed_maximum", "epsilon": epsilon})(logits, labels)
    assert bool((smooth >= rough - 1e-12).all())
    assert bool((smooth <= rough + epsilon * math.log(7) + 1e-12).all())
    if epsilon == 1.0:
        assert torch.equal(smooth, per_sample_loss("cross_entropy")(logits, labels))


def test_slow_reference_smoothing_neither_overflows_nor_cancels() -> None:
    """At z / epsilon = 10^5 the naive sum is infinite; at a margin of 30 epsilon the loss is epsilon e^-30, not 0."""
    smooth = per_sample_loss({"name": "smoothed_maximum", "epsilon": 0.01})
    assert smooth(torch.tensor([[1000.0, 0.0]]), torch.tensor([1])).tolist() == [1000.0]
    value = smooth(torch.tensor([[0.0, -0.3]], dtype=torch.float64), torch.tensor([0]))
    assert float(value) == pytest.approx(0.01 * math.exp(-30), rel=1e-2)


def test_property_a_risk_and_a_run_folder_know_the_loss(tmp_path: Path) -> None:
    data = LabelledData(torch.eye(4), torch.arange(4))
    run = train(mlp((4,), widths=(), classes=4), data, epochs=2, objective=SMOOTHED, out=tmp_path / "run")
    risk = EmpiricalRisk(run.model, data, SMOOTHED)
    expected = per_sample_loss(SMOOTHED)(run.model(data.inputs), data.labels).mean()
    for loss in (risk().loss, float(expected.detach())):
        assert run.history[-1]["train_loss"] == pytest.approx(loss, rel=1e-6)
    assert risk.describe()["loss"] == run.settings["settings"]["objective"] == SMOOTHED
    assert TrainingRun.load(tmp_path / "run").settings == run.settings


@pytest.mark.parametrize("loss", ["squared", "squared_signs", "hinge", "maximum", SMOOTHED], ids=str)
def test_property_training_lowers_it(loss: Any) -> None:
    data = LabelledData(torch.eye(4), torch.arange(4))
    network = mlp((4,), widths=(16,), classes=4)
    run = train(network, data, epochs=20, objective=loss, learning_rate=0.05)
    assert run.history[-1]["train_loss"] < 0.5 * EmpiricalRisk(network.eval(), data, loss)().loss


@pytest.mark.parametrize("loss", ["squared", "squared_signs", "maximum"])
def test_labels_out_of_range(loss: Any) -> None:
    network = mlp((4,), widths=(), classes=3)
    with pytest.raises(ValueError, match="expected every label below the number of logits"):
        train(network, LabelledData(torch.eye(4), torch.arange(4)), objective=loss, epochs=1)
    with pytest.raises(ValueError, match="label"):
        LabelledData(torch.eye(4), torch.arange(4) - 1)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("l1", r"cross_entropy.*'l1'"),
        ({"epsilon": 0.1}, r"loss must be one of.*, got None"),
        ("smoothed_maximum", r"loss is 'smoothed_maximum'; expected {'name': 'smoothed_maximum', 'epsilon': '...'}"),
        ({"name": "hinge", "epsilon": 0.1}, "expected 'hinge'"),
        (SMOOTHED | {"epsilon": 0.0}, r"epsilon must be a positive finite number.*, got 0\.0"),
        (SMOOTHED | {"epsilon": -1.0}, r"epsilon must be .*, got -1\.0"),
        (
            SMOOTHED | {"epsilon": float("nan")},
            "epsilon of the loss 'smoothed_maximum' must be a finite number, got nan",
        ),
        (SMOOTHED | {"epsilon": "0.1"}, "epsilon of the loss 'smoothed_maximum' must be .*, got '0.1'"),
    ],
)
def test_refusals(loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        per_sample_loss(loss)


@pytest.mark.parametrize("samples", [1, 7, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_slow_reference_the_mean_loss_has_the_gradient_of_the_mean_of_the_losses(samples: int, dtype: Any) -> None:
    labels = torch.randint(10, (samples,), generator=generator("labels"))
    for loss in ("cross_entropy", "squared"):
        kernel, values, gradients = per_sample_loss(loss), [], []
        for mean in (mean_loss, lambda kernel, logits, labels: kernel(logits, labels).mean()):
            logits = torch.randn(samples, 10, generator=generator("logits")).to(dtype).requires_grad_()
            values.append(mean(kernel, logits, labels))
            gradients.append(torch.autograd.grad(values[-1], logits)[0])
        assert torch.equal(*gradients)
        torch.testing.assert_close(*values)


def test_closed_form_labels_of_a_transform_that_are_no_classes_count_in_the_mean() -> None:
    # Torch's own mean leaves the label -100 out of the count as well as of the sum.
    data, network = LabelledData(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), classes=2), nn.Linear(2, 2)

    def unlabel(passed: Any) -> Any:
        return passed.inputs, torch.tensor([0, -100, -100, -100])

    objective = Objective(
        module=network, placed=EmpiricalRisk(network.eval(), data).network, loss="cross_entropy", transforms=(unlabel,)
    )
    first = -network.bias.log_softmax(0)[0] / 4
    assert float(objective(data.inputs, data.labels, 0)[0].detach()) == pytest.approx(float(first.detach()), rel=1e-6)
