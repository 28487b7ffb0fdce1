"""Generalization: losses and accuracies of the two splits against plain loops, and their intervals."""

import math

import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

import flatprobe as fp
from flatprobe.probes.generalization import Generalization
from flatprobe.utils.confidence import mean_interval
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched

DATA, OTHER = cases.data_for((1, 4, 4), samples=50), cases.data_for((1, 4, 4), samples=30, seed=1)
MODEL = cases.mlp((1, 4, 4), widths=(8,))


def made(train: tuple[list[float], list[float]], test: tuple[list[float], list[float]] = ([], [])) -> Generalization:
    """A result with these losses and correctness by split."""
    split = ("train",) * len(train[0]) + ("test",) * len(test[0])
    losses, correct = (torch.tensor([*train[k], *test[k]], dtype=torch.float64) for k in range(2))
    return Generalization(split=split, losses=losses, correct=correct, settings={})


def test_slow_reference_losses_and_correctness_sample_by_sample() -> None:
    result = fp.generalization(MODEL, DATA, OTHER)
    assert result.split == ("train",) * 50 + ("test",) * 30
    row = 0
    for data in (DATA, OTHER):
        for x, y in zip(data.inputs, data.labels, strict=True):
            logits = MODEL(x[None].double())[0].detach()
            assert float(result.losses[row]) == pytest.approx(float(cross_entropy(logits, y)), rel=1e-9)
            assert float(result.correct[row]) == float(int(logits.argmax()) == int(y))
            row += 1


def test_the_figures_are_those_of_the_risk() -> None:
    result, own, other = fp.generalization(MODEL, DATA, OTHER), *(fp.EmpiricalRisk(MODEL, d)() for d in (DATA, OTHER))
    figures = result.summary()
    assert list(figures) == ["test_accuracy", "test_loss", "train_accuracy", "train_loss", "accuracy_gap", "loss_gap"]
    assert figures["train_loss"] == pytest.approx(own.loss, rel=1e-9)
    assert figures["test_accuracy"] == pytest.approx(1 - other.error)
    assert figures["loss_gap"] == pytest.approx(other.loss - own.loss)
    assert figures["accuracy_gap"] == pytest.approx(other.error - own.error)
    assert (result.test_loss, result.train_accuracy) == (figures["test_loss"], figures["train_accuracy"])
    assert list(fp.generalization(MODEL, DATA).summary()) == ["train_accuracy", "train_loss"]


def test_closed_form_intervals() -> None:
    result = made(([1.0, 2.0, 3.0], [1, 1, 1]), ([2.0, 4.0], [1, 0]))
    assert result.interval("train_loss") == pytest.approx(mean_interval(torch.tensor([1.0, 2.0, 3.0]).double()))
    z = float(stats.norm.ppf(0.975)) ** 2
    assert result.interval("train_accuracy") == pytest.approx((1 / (1 + z / 3), 1.0))  # Wilson's at 3 of 3
    half = z**0.5 / (1 + z / 2) * math.sqrt(0.25 / 2 + z / 16)
    assert result.interval("test_accuracy") == pytest.approx((0.5 - half, 0.5 + half))
    low, high = result.interval("accuracy_gap")
    assert low == pytest.approx(0.5 - math.hypot(1 - 1 / (1 + z / 3), half))
    assert high == pytest.approx(0.5 + half)  # the training accuracy cannot be above 1
    low, high = result.interval("loss_gap")
    assert (low + high) / 2 == pytest.approx(1.0)
    halves = [float(stats.t.ppf(0.975, n - 1)) * sd / n**0.5 for n, sd in ((3, 1.0), (2, 2**0.5))]
    assert (high - low) / 2 == pytest.approx(math.hypot(*halves))


def test_property_the_interval_of_the_gap_covers_the_true_gap() -> None:
    generator, covered, times = torch.Generator().manual_seed(0), 0, 400
    for _ in range(times):
        parts = [(torch.rand(n, generator=generator) < p).double().tolist() for n, p in ((80, 0.95), (60, 0.8))]
        low, high = made(([0.0] * 80, parts[0]), ([0.0] * 60, parts[1])).interval("accuracy_gap")
        covered += low <= 0.15 <= high
    assert 0.915 <= covered / times <= 0.985  # 95 % within about four standard errors


def test_properties_of_every_probe() -> None:
    assert_model_untouched(MODEL, lambda: fp.generalization(MODEL, DATA, OTHER))
    assert_batch_size_invariant(lambda data, size: fp.generalization(MODEL, data, OTHER, batch_size=size).losses, DATA)


def test_tasks_without_classes_have_losses_alone() -> None:
    result = made(([1.0, 2.0], [math.nan] * 2), ([3.0], [math.nan]))
    assert result.summary() == {"test_loss": 3.0, "train_loss": 1.5, "loss_gap": 1.5}
    assert math.isnan(result.test_accuracy)


def test_the_record_is_the_result(tmp_path) -> None:
    result = fp.generalization(MODEL, DATA, OTHER)
    loaded = fp.load(fp.save(result, tmp_path / "generalization.parquet"))
    assert loaded.split == result.split
    assert torch.equal(loaded.losses, result.losses)
    assert loaded.summary() == result.summary()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="test must be other samples than data, got the same 50 samples twice"):
        fp.generalization(MODEL, DATA, DATA)
    with pytest.raises(ValueError, match="figure must be one of train_accuracy, train_loss, got 'test_loss'"):
        fp.generalization(MODEL, DATA).interval("test_loss")
