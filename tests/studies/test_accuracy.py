"""Warnings of another normalization, of guessing, and of an accuracy below the history's."""

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.studies.accuracy import _Found, accuracy_warnings, is_normalised

DIGITS = fp.load_data("digits")
PIXELS = DIGITS.inputs
assert isinstance(PIXELS, torch.Tensor)


def trained(inputs: torch.Tensor, epochs: int = 15, **options: object) -> nn.Module:
    data = fp.LabelledData(inputs, DIGITS.labels)
    network = fp.models.mlp(data.input_shape, widths=(32,))
    return fp.train(network, data, epochs=epochs, learning_rate=0.1, **options).model


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """A network that was trained on the pixels as they are."""
    return trained(PIXELS)


def test_a_network_of_normalized_inputs_is_named_with_its_normalization() -> None:
    mean, std = PIXELS.mean().item(), PIXELS.std().item()
    network = trained((PIXELS - mean) / std, epochs=60)
    (warning,) = accuracy_warnings(network, DIGITS)
    assert warning.startswith("accuracy ")
    assert f"; with --normalise {mean:.4g} {std:.4g} it is 100.0 % (mean and std of these data" in warning
    assert f"in Python fp.Normalised(network, {mean:.4g}, {std:.4g})" in warning
    assert accuracy_warnings(fp.Normalised(network, mean, std), DIGITS) == ()


def test_a_wrong_normalization_is_told_from_none(plain: nn.Module) -> None:
    (warning,) = accuracy_warnings(fp.Normalised(plain, 0.5, 0.2), DIGITS)
    assert "with --normalise none it is" in warning
    assert "in Python the network itself" in warning


def test_inputs_from_0_to_255_are_named() -> None:
    large = fp.LabelledData(255 * PIXELS + 0.5, DIGITS.labels)  # not whole numbers, which are warned about elsewhere
    network = trained(PIXELS)
    (warning,) = accuracy_warnings(network, large)
    assert "with --normalise 0 255 it is" in warning


@pytest.mark.parametrize("objective", ["cross_entropy", "squared"])
@pytest.mark.parametrize("epochs", [3, 15])
def test_property_a_network_on_its_own_inputs_is_never_suspected(objective: str, epochs: int) -> None:
    network = trained(PIXELS, epochs, objective=objective)
    for split in ("train", "test"):
        assert accuracy_warnings(network, fp.load_data("digits", split)) == ()


def test_guessing_is_told_with_the_largest_class_and_another_order_of_the_classes(plain: nn.Module) -> None:
    order = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    (warning,) = accuracy_warnings(plain, fp.LabelledData(PIXELS, order[DIGITS.labels]))
    assert "hardly better than guessing the largest class (" in warning
    assert "with the classes in another order it is 9" in warning
    (other,) = accuracy_warnings(plain, DIGITS.with_random_labels())
    assert "check the scale of the inputs (--normalise), the order of the classes and the weights" in other
    wide = fp.models.mlp(DIGITS.input_shape, classes=100, widths=(8,)).eval()
    assert "by 100 outputs for 10 classes, hardly better than guessing" in accuracy_warnings(wide, DIGITS)[0]


def test_closed_form_the_share_of_the_largest_class() -> None:
    labels = torch.tensor([0] * 70 + [1] * 30)
    constant = nn.Linear(2, 2).eval()
    with torch.no_grad():
        constant.weight.zero_()
        constant.bias.copy_(torch.tensor([1.0, 0.0]))
    (warning,) = accuracy_warnings(constant, fp.LabelledData(torch.rand(100, 2), labels))
    assert warning.startswith("accuracy 70.0 %, hardly better than guessing the largest class (70.0 % of 100 samples)")
    (same,) = accuracy_warnings(constant, fp.LabelledData(torch.rand(100, 2), labels), claimed=0.7)
    assert same.endswith("(70.0 % of 100 samples); the history in its folder says the same")
    assert accuracy_warnings(constant, fp.LabelledData(torch.rand(10, 2), labels[65:75])) == ()  # too few to tell
    assert accuracy_warnings(constant, fp.LabelledData(torch.rand(100, 2), 0 * labels)) == ()  # all right


def test_closed_form_fewer_errors_and_a_fifth_of_the_loss() -> None:
    def found(loss: float, correct: list[int]) -> _Found:
        return _Found(
            torch.full((len(correct),), loss, dtype=torch.float64), torch.tensor(correct, dtype=torch.float64)
        )

    before = found(1.0, [1, 0, 0, 0])
    assert found(0.19, [1, 1, 0, 0]).is_clearly_better(before, 5)
    assert not found(0.21, [1, 1, 0, 0]).is_clearly_better(before, 5)  # too few samples for a sign test
    assert not found(0.1, [0, 1, 0, 0]).is_clearly_better(before, 5)  # as many errors
    many = found(1.0, [0] * 100)  # the sign test of 9 gains has the p-value 1 / 512, and that of 8 gains 1 / 256
    assert not found(0.9, [1] * 9 + [0] * 91).is_clearly_better(many, 5)  # not half of the errors
    assert found(0.9, [1] * 9 + [0]).is_clearly_better(found(1.0, [0] * 10), 5)
    assert not found(0.9, [1] * 8 + [0]).is_clearly_better(found(1.0, [0] * 9), 5)


def test_a_quarter_of_large_samples_is_classified(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fp.models.mlp(DIGITS.input_shape, widths=(4,)).eval()
    data = fp.LabelledData(PIXELS, torch.arange(1500) % 2)
    monkeypatch.setattr("flatprobe.studies.accuracy.SAMPLES", 1000)
    for large, count in ((64, 1000), (63, 250)):
        monkeypatch.setattr("flatprobe.studies.accuracy.LARGE", large)
        assert f" of {count} samples)" in accuracy_warnings(network, data)[0]


def test_an_accuracy_below_that_of_the_history(plain: nn.Module) -> None:
    assert accuracy_warnings(plain, DIGITS, claimed=1.0) == ()
    weights = {name: value + 0.5 * torch.randn_like(value) for name, value in plain.state_dict().items()}
    other = fp.models.mlp(DIGITS.input_shape, widths=(32,)).eval()
    other.load_state_dict(weights)
    assert any(
        "and 99.0 % at the end of its training" in said for said in accuracy_warnings(other, DIGITS, claimed=0.99)
    )


def test_what_has_no_accuracy_or_no_pixels_is_left_alone(plain: nn.Module) -> None:
    regression = fp.LabelledData(torch.rand(50, 3), torch.rand(50, 1))
    assert accuracy_warnings(nn.Linear(3, 1).eval(), regression) == ()
    assert not is_normalised(plain)
    assert is_normalised(fp.Normalised(plain, 0.5, 0.2))
    tokens = fp.LabelledData(torch.arange(60).reshape(30, 2) % 7, torch.arange(30) % 2)
    network = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 2)).eval()
    assert all("hardly better than guessing" in said for said in accuracy_warnings(network, tokens))
