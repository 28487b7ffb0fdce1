"""Penalties, transforms and constraints in the loop: what a step minimises, what the history and the folder keep."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.models import mlp
from flatprobe.training.objective import Objective, name_penalties
from flatprobe.training.penalties import PENALTIES, DoubleBackpropagation, JacobianFrobenius
from flatprobe.training.registry import build, describe
from flatprobe.utils.fingerprint import fingerprint
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters, noisy_network
from tests.training.test_run_folder import interrupted_after, without_seconds

SETTINGS = {"epochs": 4, "batch_size": 8, "learning_rate": 0.1, "seed": 3}


@dataclass
class Shrinking:
    """A penalty with a memory: each step's value depends on those before it."""

    memory: dict[str, Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __call__(self, passed: fp.ForwardPass, /) -> Tensor:
        steps = self.memory["steps"] = self.memory.get("steps", torch.zeros(())) + 1
        return passed.logits.square().mean() / steps


def doubled(passed: fp.ForwardPass) -> tuple[Tensor, Any]:
    return 2 * passed.inputs.detach(), passed.labels


def halved(module: nn.Module, layers: object) -> None:
    for value in module.parameters():
        value.mul_(0.5)


def test_a_step_minimises_the_sum() -> None:
    """Closed form on a linear network: the loss' gradient and that of the penalty ||W||_F^2."""
    network = nn.Linear(4, 3, bias=False).double().eval()
    data = clusters(8)
    data = fp.LabelledData(data.inputs.double(), data.labels, classes=3)
    expected = network.weight.detach().clone().requires_grad_()
    loss = nn.functional.cross_entropy(data.inputs @ expected.T, data.labels) + 0.3 * expected.square().sum()
    loss.backward()
    run = fp.train(
        network, data, epochs=1, batch_size=8, momentum=0.0, learning_rate=0.1, penalties=[(0.3, JacobianFrobenius())]
    )
    torch.testing.assert_close(run.model.weight, expected - 0.1 * expected.grad, rtol=1e-9, atol=1e-12)
    assert run.history[0]["jacobian_frobenius"] == pytest.approx(
        float(network.weight.detach().square().sum()), rel=1e-9
    )


def test_property_strength_zero_is_plain_training_to_the_last_bit() -> None:
    network, data = noisy_network(), clusters()
    plain = fp.train(network, data, **SETTINGS)
    run = fp.train(network, data, penalties=[(0, DoubleBackpropagation())], **SETTINGS)
    assert_same_state(run.model, plain.model)
    assert list(run.history[0]) == list(plain.history[0])


def test_penalties_see_the_forward_pass_of_the_objective() -> None:
    """Property: a vanishing strength leaves the weights, dropout and BatchNorm statistics of plain training."""
    network, data = noisy_network(), clusters()
    plain = fp.train(network, data, **SETTINGS)
    run = fp.train(network, data, penalties=[(1e-30, DoubleBackpropagation())], **SETTINGS)
    for (name, own), expected in zip(run.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5, msg=name)  # float32, other kernels, 20 steps


def test_property_transforms_come_before_everything_and_one_after_the_other() -> None:
    network, data = nn.Linear(4, 3).eval(), clusters()
    scaled = fp.LabelledData(4 * data.inputs, data.labels, classes=3)
    run = fp.train(network, data, transforms=[doubled, doubled], penalties=[(0.1, DoubleBackpropagation())], **SETTINGS)
    expected = fp.train(network, scaled, penalties=[(0.1, DoubleBackpropagation())], **SETTINGS)
    assert_same_state(run.model, expected.model)


def test_closed_form_constraints_hold_before_the_first_step_and_after_each() -> None:
    network, data = nn.Linear(4, 3).eval(), clusters(8)
    once = fp.train(network, data, constraints=[halved], epochs=1, batch_size=8, learning_rate=1e-30)
    torch.testing.assert_close(once.model.weight, network.weight / 4)


def test_property_the_trainers_copy_remembers_and_the_callers_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data, penalty = mlp((4,), classes=3), clusters(), Shrinking()

    def train_it(out):
        return fp.train(network, data, penalties=[(0.5, penalty)], out=out, save_every=0, **SETTINGS)

    whole = train_it(None)
    interrupted_after(monkeypatch, 2, lambda: train_it(tmp_path / "run"))
    run = train_it(tmp_path / "run")
    assert penalty.memory == {}
    assert_same_state(run.model, whole.model)
    assert without_seconds(run) == without_seconds(whole)


def test_property_a_run_with_parts_is_recorded_and_loaded(tmp_path: Path) -> None:
    network, data = mlp((4,), classes=3), clusters()
    parts = {"penalties": [(0.1, "double_backpropagation"), (0.2, Shrinking())], "transforms": [doubled]}
    run = fp.train(network, data, out=tmp_path / "run", constraints=[halved], **parts, **SETTINGS)
    assert run.settings["settings"]["penalties"] == [
        [0.1, {"name": "double_backpropagation"}],
        [0.2, fingerprint(Shrinking())],
    ]
    assert json.loads((run.path / "config.json").read_text()) == run.settings
    assert fp.TrainingRun.load(run.path).reached
    assert [name for name in run.history[0] if "epoch" not in name][-4:-2] == ["double_backpropagation", "Shrinking"]
    plain = fp.train(network, data, **SETTINGS)
    assert not {"penalties", "transforms", "constraints", "precision"} & plain.settings["settings"].keys()


def test_closed_form_two_of_a_kind_have_names_of_their_own() -> None:
    found = name_penalties([(1, DoubleBackpropagation()), (0, Shrinking()), (2, DoubleBackpropagation())])
    assert {name: strength for name, (strength, _) in found.items()} == {
        "double_backpropagation": 1,
        "double_backpropagation_2": 2,
    }


def test_what_is_not_finite_is_named_with_its_step_and_the_last_epoch_is_kept(tmp_path: Path) -> None:
    network, data = mlp((4,), classes=3), clusters()

    @dataclass
    class Breaking:
        at: int
        memory: dict[str, Tensor] = field(init=False, default_factory=dict)

        def __call__(self, passed: fp.ForwardPass, /) -> Tensor:
            steps = self.memory["steps"] = self.memory.get("steps", torch.zeros(())) + 1
            return passed.logits.square().mean() / (0 if steps == self.at else 1)

    steps = -(-len(data) // 8)
    settings = {**SETTINGS, "penalties": [(0.1, DoubleBackpropagation()), (0.1, Breaking(2 * steps + 2))]}
    with pytest.raises(RuntimeError, match=rf"'Breaking' is inf in step {2 * steps + 1} .*epoch 3; .*loss .*run holds"):
        fp.train(network, data, out=tmp_path / "run", **settings)
    expected = fp.train(network, data, **{**settings, "epochs": 2})
    assert_same_state(fp.load_checkpoint(tmp_path / "run"), expected.model)
    with pytest.raises(RuntimeError, match="'Breaking' is inf"):
        fp.train(network, data, **settings)
    alone = {**settings, "batch_size": len(data), "penalties": [(0.1, Breaking(2))]}  # one step per epoch
    with pytest.raises(RuntimeError, match=r"'Breaking' is inf in step 1 .*epoch 2; the other terms there: loss"):
        fp.train(network, data, **alone)


def test_property_mixed_precision_is_the_objectives_alone() -> None:
    """Weights, penalties and what is measured stay float32; the objective's logits carry bfloat16's rounding."""
    network, data, seen = mlp((4,), classes=3).eval(), clusters(), []

    def watching(passed: fp.ForwardPass) -> Tensor:
        seen.append(passed.logits.dtype)
        return passed.logits.square().mean()

    run = fp.train(network, data, precision="bfloat16", penalties=[(0.1, watching)], **SETTINGS)
    assert set(seen) == {torch.float32}
    assert {value.dtype for value in run.model.parameters()} == {torch.float32}
    full = fp.train(network, data, penalties=[(0.1, watching)], **SETTINGS)
    difference = abs(run.history[0]["train_loss"] - full.history[0]["train_loss"])
    assert 0 < difference < 0.05 * full.history[0]["train_loss"]
    terms = Objective(module=network, placed=fp.EmpiricalRisk(network, data).network, loss="cross_entropy")
    rounded = Objective(module=network, placed=terms.placed, loss="cross_entropy", precision="bfloat16")
    batch = data.gather(torch.arange(8))
    assert 0 < abs(float(terms(*batch, 0)[0].detach()) - float(rounded(*batch, 0)[0].detach())) < 2**-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalties": [(-0.1, "double_backpropagation")]}, r"strength of the penalty double_backpropagation is -0\.1"),
        ({"penalties": [(float("nan"), DoubleBackpropagation())]}, r"strength of .* is nan; expected a finite number"),
        (
            {"penalties": [DoubleBackpropagation()]},
            r"an entry of penalties is .*; expected a pair \(strength, penalty\)",
        ),
        ({"penalties": [(0.1, "ridge")]}, r"the penalty must be one of 'jacobian_frobenius'.*, got 'ridge'"),
        (
            {"penalties": [(0.1, {"name": "jacobian_frobenius", "rank": 2})]},
            r"was given rank; expected some of projections",
        ),
        ({"transforms": ["blur"]}, r"the transform must be one of.*, got 'blur'"),
        ({"precision": "float16"}, r"precision must be one of None, 'bfloat16'.*, got 'float16'"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.train(mlp((4,), classes=3), clusters(), epochs=1, **settings)


def test_a_class_in_the_place_of_an_object_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the penalty is the class DoubleBackpropagation; expected an object"):
        fp.train(mlp((4,), classes=3), clusters(), epochs=1, penalties=[(0.1, DoubleBackpropagation)])


def test_property_parts_are_made_from_what_describes_them() -> None:
    for part in (JacobianFrobenius(projections=2, outputs="softmax"), DoubleBackpropagation()):
        assert build("penalty", describe(part, PENALTIES), PENALTIES) == part


def test_labels_beyond_the_outputs_are_refused_for_targets_too() -> None:
    data = fp.LabelledData(torch.zeros(4, 4), torch.tensor([0, 1, 2, 5]))
    with pytest.raises(ValueError, match="label"):
        fp.train(mlp((4,), classes=3), data, epochs=1, objective="squared")


def test_closed_form_names_neither_hide_one_another_nor_a_column() -> None:
    def decay(passed: fp.ForwardPass) -> Tensor:
        return passed.logits.square().mean()

    def decay_2(passed: fp.ForwardPass) -> Tensor:
        return passed.logits.square().mean()

    def train_accuracy(passed: fp.ForwardPass) -> Tensor:
        return 1 + 0 * passed.logits.sum()

    found = name_penalties([(1.0, decay_2), (2.0, decay), (3.0, decay), (4.0, train_accuracy)])
    assert {name: strength for name, (strength, _) in found.items()} == {
        "decay_2": 1.0,
        "decay": 2.0,
        "decay_3": 3.0,
        "train_accuracy_2": 4.0,
    }


def test_weights_that_are_not_finite_are_blamed_on_the_step_and_the_epoch_before_is_kept(tmp_path: Path) -> None:
    """The penalty cannot take NaN weights, and raises an error of its own before the terms are looked at."""
    network, data = fp.models.mlp((4,), widths=(8,), classes=3), clusters()

    def breaking(passed: fp.ForwardPass) -> Tensor:
        if not bool(passed.logits.isfinite().all()):
            raise KeyError
        return passed.logits.square().mean()

    schedule = {"name": "step", "stages": [(1e-3, 1), (1e30, 1)]}
    settings = {"batch_size": 8, "schedule": schedule, "penalties": [(0.1, breaking)]}
    with pytest.raises(RuntimeError, match=r"'loss' is (inf|nan) in step .* holds the weights of epoch 1"):
        fp.train(network, data, epochs=2, out=tmp_path / "run", **settings)
    assert fp.load_checkpoint(tmp_path / "run") is not None
