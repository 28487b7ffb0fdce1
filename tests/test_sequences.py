"""Networks taken apart after their first layer: the same values, and everything that must not be taken apart."""

import math

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network import Network
from flatprobe.weights import combined
from tests import cases

DATA = cases.data_for((1, 8, 8))


def test_property_the_split_evaluation_is_the_whole_one() -> None:
    model = cases.normalised()
    risk = fp.EmpiricalRisk(model, DATA, batch_size=32)
    assert risk.network.first_linear() is not None
    other = {name: value + 0.1 for name, value in risk.center.items()}
    at = risk.along([risk.center, other])
    for coefficients in ([1.0, 0.0], [0.0, 1.0], [0.3, 0.7], [1.0, -2.5]):
        whole = risk(combined([risk.center, other], coefficients))
        assert at(coefficients).loss == pytest.approx(whole.loss, rel=1e-12)
        assert at(coefficients).error == whole.error
    assert at([1.0, 0.0]) == risk()
    partial = {"network.linear2.bias": torch.ones_like(risk.center["network.linear2.bias"])}
    assert risk.along([risk.center, partial])([1.0, 0.5]).loss == pytest.approx(
        risk(combined([risk.center, partial], [1.0, 0.5])).loss, rel=1e-12
    )


def _hooked_inside() -> nn.Module:
    model = cases.mlp()
    model[1].register_forward_hook(lambda _layer, _inputs, output: output.clamp(-0.1, 0.1))
    return model


def _weight_normalised() -> nn.Module:
    model = cases.mlp()
    nn.utils.parametrizations.weight_norm(model[1])
    return model.eval()


def _twice_normalised() -> nn.Module:
    twice = nn.BatchNorm1d(64, affine=False)
    layers = [nn.Flatten(), nn.Linear(64, 64), twice, nn.ReLU(), twice, nn.Linear(64, 10)]
    return nn.Sequential(*layers).double().eval()


def _hooked() -> nn.Module:
    model = cases.mlp()
    model.register_forward_hook(lambda *_: None)
    return model


def _tied() -> nn.Module:
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(64, 10)).double().eval()


def _reused() -> nn.Module:
    layer = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(64, 10)).double().eval()


UNLIKE = [_hooked_inside, _weight_normalised, _twice_normalised]


@pytest.mark.parametrize("build", [cases.cnn, cases.residual, _hooked, _tied, _reused, cases.affine, *UNLIKE])
def test_networks_that_cannot_be_split_are_run_whole(build) -> None:
    assert Network(build()).first_linear() is None


@pytest.mark.parametrize("build", [_tied, _reused])
def test_shared_weights_move_together(build) -> None:
    model = build()
    risk = fp.EmpiricalRisk(model, DATA)
    moved = {name: value * 1.5 for name, value in risk.center.items()}
    twin = build()
    twin.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()})
    assert risk.along([moved])([1.0]).loss == pytest.approx(fp.EmpiricalRisk(twin, DATA)().loss, rel=1e-9)


@pytest.mark.parametrize("build", UNLIKE)
def test_networks_that_only_look_like_plain_sequences_keep_their_own_values(build) -> None:
    model = build()
    risk = fp.EmpiricalRisk(model, DATA)
    assert risk.along([risk.center])([1.0]) == risk()
    assert math.isfinite(fp.flatness_radius(risk, directions=1).mean)
    assert fp.gaussian_robustness(model, DATA, gammas=[0.0], draws=1).error.item() == risk().error
