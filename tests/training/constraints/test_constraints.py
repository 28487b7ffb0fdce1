"""Constraints on the weights: projections in closed form, training within them, refusals."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatprobe.models import mlp
from flatprobe.training import ForwardPass, train
from flatprobe.training.constraints import CONSTRAINTS, Ball, Box, UnitRows
from flatprobe.training.registry import build, describe
from flatprobe.training.trainer import Trainer
from flatprobe.utils.rng import generator
from tests.helpers import cases
from tests.helpers.cases import batch, normalised_network
from tests.helpers.properties import assert_same_state

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}  # algebra in float64
EACH = {
    "box": {"low": -0.1, "high": 0.2},
    "ball": {"radius": 0.5},
    "spectral_projection": {"bound": 0.8, "matrices": "clip", "vectors": 3},
    "unit_rows": {},
}


def layers_of(network: nn.Module, inputs: torch.Tensor) -> tuple:
    return ForwardPass(network, inputs, torch.zeros(len(inputs), dtype=torch.int64), updates=False).layers


def flat(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def with_frozen() -> nn.Module:
    network = mlp((5,), widths=(4,), classes=3).double()
    network.linear1.requires_grad_(False)
    return network


@pytest.mark.parametrize("name", EACH)
def test_property_json_round_trip(name: str) -> None:
    assert EACH.keys() == CONSTRAINTS.keys()
    constraint = build("constraint", {"name": name, **EACH[name]}, CONSTRAINTS)
    record = describe(constraint, CONSTRAINTS)
    assert EACH[name].items() <= record.items()
    assert "memory" not in record
    assert build("constraint", record, CONSTRAINTS) == constraint


def test_closed_form_box_clips_every_weight() -> None:
    network = normalised_network()
    before = flat(network)
    Box(-0.1, 0.2)(network, ())
    assert torch.equal(flat(network), before.clamp(-0.1, 0.2))
    assert bool((before != flat(network)).any())


def test_closed_form_ball_is_around_the_origin_over_all_weights_together() -> None:
    network = normalised_network()
    before = flat(network)
    Ball(100.0)(network, ())
    assert torch.equal(flat(network), before)
    Ball(2.0)(network, ())
    torch.testing.assert_close(flat(network), 2 * before / before.norm(), **TOLERANCE)


@pytest.mark.parametrize("make", [lambda: Box(-0.01, 0.01), lambda: Ball(0.1)])
def test_property_projections_repeat_themselves_and_are_the_nearest_points(make: Any) -> None:
    """<w - Pw, v - Pw> <= 0 for every v in K."""
    network = normalised_network()
    before, constraint = flat(network), make()
    constraint(network, ())
    projected = flat(network)
    constraint(network, ())
    torch.testing.assert_close(flat(network), projected, rtol=1e-14, atol=0)
    other = normalised_network()
    for seed in range(20):
        with torch.no_grad():
            for index, value in enumerate(other.parameters()):
                value.copy_(torch.randn(value.shape, generator=generator(seed, index)))
        constraint(other, ())
        assert float((before - projected) @ (flat(other) - projected)) <= 1e-12


def test_unit_rows_closed_form() -> None:
    """Rows of matrices and filters of kernels; biases, BatchNorm and a row of zeros as they are."""
    network = normalised_network()
    with torch.no_grad():
        network.head.weight[1] = 0.0
    before = copy.deepcopy(network)
    UnitRows()(network, layers_of(network, batch()[0]))
    weights = {"first.weight", "second.weight", "skip.weight", "head.weight"}
    for (name, value), (_, old) in zip(network.named_parameters(), before.named_parameters(), strict=True):
        if name not in weights:
            assert torch.equal(value, old), name
            continue
        for row, was in zip(value.detach(), old.detach(), strict=True):
            torch.testing.assert_close(row, was / was.norm() if was.any() else was, **TOLERANCE)


def test_unit_rows_follow_weight_normalization_to_first_order() -> None:
    """Closed form: S17's step on V, through the normalisation, and the projected step differ by O(rate^2)."""
    inputs, labels = torch.rand(9, 5, generator=generator(0)).double(), torch.arange(9) % 3
    begun = nn.Linear(5, 3).double()
    UnitRows()(begun, layers_of(begun, inputs))
    gaps = []
    for rate in (0.1, 0.05):
        direct = begun.weight.detach().clone().requires_grad_()
        normalised = direct / direct.norm(dim=1, keepdim=True)
        loss = nn.functional.cross_entropy(inputs @ normalised.T + begun.bias.detach(), labels)
        (slope,) = torch.autograd.grad(loss, direct)
        moved = direct.detach() - rate * slope
        expected = moved / moved.norm(dim=1, keepdim=True)
        network = copy.deepcopy(begun)
        nn.functional.cross_entropy(network(inputs), labels).backward()
        with torch.no_grad():
            network.weight -= rate * network.weight.grad
        UnitRows()(network, layers_of(network, inputs))
        gaps.append(float((network.weight.detach() - expected).norm()))
        assert gaps[-1] < 0.2 * rate * float(slope.norm())
    assert gaps[1] == pytest.approx(gaps[0] / 4, rel=0.1)  # the third order is a tenth of the second here


@pytest.mark.parametrize("name", EACH)
def test_property_frozen_weights_stay(name: str) -> None:
    network = with_frozen()
    before = copy.deepcopy(network)
    build("constraint", {"name": name, **EACH[name]}, CONSTRAINTS)(
        network, layers_of(network, torch.ones(1, 5).double())
    )
    assert_same_state(network.linear1, before.linear1)
    assert not torch.equal(network.linear2.weight, before.linear2.weight)


@pytest.mark.parametrize("name", EACH)
def test_property_training_stays_within_and_resumes_to_the_last_bit(name: str, tmp_path: Path) -> None:
    data, network = cases.data_for((1, 8, 8), samples=40), mlp((1, 8, 8), widths=(12,))
    state = copy.deepcopy(network.state_dict())
    constraint = build("constraint", {"name": name, **EACH[name]}, CONSTRAINTS)
    options = {"batch_size": 8, "learning_rate": 0.2, "constraints": [constraint]}
    whole = train(network, data, epochs=3, **options)
    assert whole.settings["settings"]["constraints"] == [describe(constraint, CONSTRAINTS)]
    weights = flat(whole.model)
    if name == "box":
        assert bool(((weights >= -0.1) & (weights <= 0.2)).all())
    elif name == "ball":
        assert float(weights.double().norm()) <= 0.5 * (1 + 1e-6)  # rounding in float32
    elif name == "unit_rows":
        rows = torch.cat([whole.model.linear1.weight.norm(dim=1), whole.model.linear2.weight.norm(dim=1)])
        torch.testing.assert_close(rows.detach(), torch.ones_like(rows), rtol=1e-6, atol=0)
    assert not getattr(constraint, "memory", {})  # the caller's object is copied
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])
    interrupt_after(2, network, data, tmp_path, options)
    resumed = train(network, data, epochs=3, out=tmp_path, **options)
    assert_same_state(resumed.model, whole.model)


def interrupt_after(epochs: int, network: nn.Module, data, folder, options) -> None:
    """A run of three epochs that stops early: its record says three, and what it has is saved."""
    from flatprobe.training import loop  # beside its user

    class Stopped(Trainer):
        def epoch(self) -> bool:
            if len(self.history) == epochs:
                raise KeyboardInterrupt
            return super().epoch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Trainer", Stopped)
        with pytest.raises(KeyboardInterrupt):
            train(network, data, epochs=3, out=folder, save_every=0, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Box(1.0, 1.0), r"low is 1\.0 and high 1\.0; expected low below high"),
        (lambda: Box(float("nan"), 1.0), "low is nan"),
        (lambda: Ball(0.0), r"radius must be a positive finite number.*, got 0\.0"),
        (lambda: build("constraint", {"name": "unit_rows", "gain": 1}, CONSTRAINTS), "was given gain; expected no arg"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.table((x[:, 0] > 0).long()))


@pytest.mark.parametrize("name", ["unit_rows", "spectral_projection"])
def test_layers_of_unknown_form_are_named(name: str) -> None:
    constraint = build("constraint", {"name": name, **EACH[name]}, CONSTRAINTS)
    network = Embedded()
    with pytest.raises(
        ValueError, match=rf"constraint '{name}' met the layer 'table', which is neither linear nor a c"
    ):
        constraint(network, layers_of(network, torch.ones(2, 4)))
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"whose weight is computed from other parameters"):
        constraint(computed, layers_of(computed, torch.ones(2, 4)))
    with pytest.raises(ValueError, match=rf"constraint '{name}' met no linear layer and no convolution"):
        constraint(nn.Flatten(), layers_of(nn.Flatten(), torch.ones(2, 4)))
