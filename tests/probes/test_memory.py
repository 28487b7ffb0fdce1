"""Copies of the weights that weight-space probes hold, counted tensor by tensor on a network that is mostly weights."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network import slopes, weights
from flatprobe.probes import gradient_noise, hessian_trace
from flatprobe.risk import empirical
from tests.helpers.memory import peak_bytes

WIDTH = 400
DATA = fp.LabelledData(torch.rand(8, 16), torch.arange(8) % 4, classes=4)


def network() -> nn.Module:
    layers = [nn.Linear(16, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 4)).eval()


def copies(probe: Callable[[fp.EmpiricalRisk], object]) -> float:
    model = network()
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return peak_bytes(lambda: probe(fp.EmpiricalRisk(model, DATA, batch_size=4))) / size


@pytest.mark.parametrize(
    ("probe", "most"),
    [
        (lambda risk: risk(), 3.01),  # and the activations
        (lambda risk: risk.gradient(), 4.01),
        (lambda risk: fp.flatness_radius(risk, directions=2), 6),
        (lambda risk: fp.flatness_radius(risk, directions=2, law="filter"), 6),
        (lambda risk: fp.flatness_radius(risk, directions=2, law="adaptive"), 6),
        (lambda risk: fp.hessian_trace(risk, draws=3), 5.01),  # and scalars
        (lambda risk: fp.gradient_noise(risk, batch_size=4, draws=3), 4.02),
        (lambda risk: fp.hessian_eigenvalues(risk, tolerance=0.5), 13 + 7),
        (lambda risk: fp.hessian_eigenvalues(risk, tolerance=0.5, count=3), 13 + 7 + 2 * 3),
    ],
    ids=["risk", "gradient", "flatness", "filter", "adaptive", "trace", "noise", "eigenvalue", "eigenvalues"],
)
def test_the_most_copies_of_the_weights(
    probe: Callable[[fp.EmpiricalRisk], object], most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_PIECE", 2**10)  # as small beside this network as it is beside a large one
    monkeypatch.setattr(gradient_noise, "_SMALL", 2**8)
    monkeypatch.setattr(hessian_trace, "_BYTES", 0)  # likewise: no further draws share a pass
    monkeypatch.setattr(empirical, "KEPT", 0)  # likewise: no further graphs are kept
    monkeypatch.setattr(slopes, "_PRECISE", 0)  # likewise: derivatives are compared in the network's own precision
    assert copies(probe) <= most
