"""Weights on a device that is not the CPU, data on the CPU: every probe and kernel gives the CPU's numbers."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import flatprobe as fp
from flatprobe.training.constraints import CONSTRAINTS
from flatprobe.training.optimizers import OPTIMIZERS
from flatprobe.training.penalties import PENALTIES
from flatprobe.training.transforms import TRANSFORMS
from tests.helpers import elsewhere
from tests.helpers.elsewhere import Elsewhere, Remote
from tests.helpers.transform_arguments import ARGUMENTS

SIZE = 4
GENERATOR = torch.Generator().manual_seed(0)
DATA = fp.LabelledData(torch.rand(10, 1, 6, 6, generator=GENERATOR), torch.arange(10) % 3, classes=3)


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build().double()
        module.train()(torch.rand(64, 1, 6, 6, dtype=torch.float64))
    return module.eval()


NETWORKS = {
    "mlp": _seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))),
    "cnn": _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 3),
        )
    ),
}

NETWORKS["smooth"] = _seeded(
    lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3)
    )
)

Probe = Callable[[nn.Module, Any], Any]


def _risk(model: nn.Module, data: Any, **options: Any) -> fp.EmpiricalRisk:
    return fp.EmpiricalRisk(model, data, batch_size=SIZE, **options)


def _shifted(m: nn.Module) -> dict[str, Tensor]:
    return {name: 1.1 * value for name, value in m.state_dict().items()}


def _along(m: nn.Module, d: Any) -> list[float]:
    risk = _risk(m, d)
    line = risk.along([risk.center, {name: torch.ones_like(w) for name, w in risk.center.items()}])
    return [line([1.0, s]).loss for s in (0.0, 0.01)]


PROBES: dict[str, Probe] = {
    "risk": lambda m, d: list(vars(_risk(m, d)()).values()),
    "user loss": lambda m, d: (
        _risk(m, d, loss=lambda z, y: nn.functional.nll_loss(z.log_softmax(1), y, reduction="none"))().loss
    ),
    "squared loss": lambda m, d: _risk(m, d, loss="squared")().loss,
    "risk elsewhere": lambda m, d: _risk(m, d)(_shifted(m)).loss,
    "gradient": lambda m, d: _risk(m, d).gradient(),
    "gradient of samples": lambda m, d: _risk(m, d).gradient(positions=torch.tensor([0, 3, 9])),
    "products": lambda m, d: (r := _risk(m, d)).hvp(None, r.center),
    "line": lambda m, d: _along(m, d),
    "flatness": lambda m, d: fp.flatness_radius(_risk(m, d), directions=1, verify=2, rtol=0.1),
    "flatness by error": lambda m, d: fp.flatness_radius(
        _risk(m, d), directions=1, objective="error", epsilon=0.2, rtol=0.1
    ),
    "flatness filter": lambda m, d: fp.flatness_radius(
        _risk(m, d), directions=1, law="filter", inactive="hold", rtol=0.1
    ),
    "flatness recalibrated": lambda m, d: fp.flatness_radius(
        _risk(m, d), directions=1, batch_norm="recalibrate", rtol=0.1
    ),
    "slice": lambda m, d: fp.random_slice(_risk(m, d), steps=3),
    "slice on a line": lambda m, d: fp.random_slice(_risk(m, d), dimensions=1, steps=3, law="adaptive"),
    "interpolation": lambda m, d: fp.interpolate(_risk(m, d), [m, _shifted(m)], fp.segment(steps=3)),
    "interpolation of statistics": lambda m, d: fp.interpolate(
        _risk(m, d), [m, _shifted(m)], fp.segment(steps=3), batch_norm="interpolate"
    ),
    "endpoints on the cpu": lambda m, d: fp.interpolate(
        _risk(m, d),
        [NETWORKS["mlp" if len(m) == 4 else "cnn"], m],
        fp.segment(steps=3),
        batch_norm=None if len(m) == 4 else "interpolate",
    ),
    "interpolation recalibrated": lambda m, d: fp.interpolate(
        _risk(m, d), [m, _shifted(m)], fp.segment(steps=3), batch_norm="recalibrate", calibration=DATA
    ),
    "sharpness": lambda m, d: fp.worst_case_sharpness(_risk(m, d), radius=0.1, steps=2, restarts=2),
    "adaptive sharpness": lambda m, d: fp.worst_case_sharpness(
        _risk(m, d), law="adaptive", radius=0.1, steps=2, restarts=1
    ),
    "eigenvalues": lambda m, d: fp.hessian_eigenvalues(_risk(m, d), count=2, tolerance=0.1),
    "eigenvalues per layer": lambda m, d: fp.hessian_eigenvalues(_risk(m, d), per_layer=True, tolerance=0.1),
    "trace": lambda m, d: fp.hessian_trace(_risk(m, d), draws=3),
    "noise": lambda m, d: fp.gradient_noise(_risk(m, d), batch_size=4, draws=4, components=5),
    "margins": lambda m, d: fp.functional_margins(m, d, batch_size=SIZE),
    "scores": lambda m, d: fp.scores(m, d, batch_size=SIZE),
    "jacobians": lambda m, d: fp.jacobian_norms(m, d, batch_size=SIZE, method="gram"),
    "jacobians lanczos": lambda m, d: fp.jacobian_norms(m, d, batch_size=SIZE, method="lanczos"),
    "jacobians frobenius": lambda m, d: fp.jacobian_norms(m, d, norm="frobenius", outputs="softmax"),
    "jacobian maximum": lambda m, d: fp.jacobian_maximum(m, d, batch_size=SIZE),
    "jacobian maximum on segments": lambda m, d: fp.jacobian_maximum(
        m, d, along="segments", pairs=5, points=3, refine=2, batch_size=SIZE
    ),
    "robustness": lambda m, d: fp.gaussian_robustness(m, d, gammas=[0.1, 0.5], draws=2, batch_size=SIZE),
    "smoothing": lambda m, d: fp.smoothed_certificate(m, d, draws=30, selection=10, batch_size=SIZE),
    "pgd": lambda m, d: fp.adversarial_accuracy(m, d, budgets=[0.3], steps=3, restarts=2, batch_size=SIZE),
    "fgsm": lambda m, d: fp.adversarial_accuracy(m, d, budgets=[0.3], norm="linf", attack="fgsm", batch_size=SIZE),
    "norms": lambda m, d: fp.weight_norms(m, d.input_shape, initial=_shifted(m)),
    "attacks": lambda m, d: fp.geometric_margins(
        m, d.head(4), upper=("ddn", "log_barrier", "deepfool", "fab"), lower=(), steps=2, batch_size=3, box=(0, 1)
    ),
    "attacks linf": lambda m, d: fp.geometric_margins(
        m, d.head(4), upper=("deepfool", "ifgsm"), lower=(), norm="linf", steps=2
    ),
    "certificates": lambda m, d: fp.geometric_margins(m, d, upper=("ddn",), lower=("spectral", "frobenius"), steps=4),
    "certificates linf": lambda m, d: fp.geometric_margins(m, d.head(4), upper=("deepfool",), norm="linf", steps=2),
    "estimates": lambda m, d: fp.geometric_margins(
        m, d, upper=("ddn",), lower=("gamma_1", "gamma_2", "gradient"), steps=4, points=2, segments=4, batch_size=SIZE
    ),
}


# These run on the MLP with the data elsewhere, too: its first layer takes other paths.
MLP = {
    "risk",
    "gradient of samples",
    "line",
    "flatness",
    "interpolation",
    "endpoints on the cpu",
    "margins",
    "jacobians",
}
MLP |= {"robustness", "smoothing", "certificates", "pgd"}
CASES = [("cnn", "cpu", name) for name in PROBES if name != "interpolation"]
CASES += [("mlp", "device", name) for name in PROBES if name in MLP]
PENALTY_ARGUMENTS: dict[str, dict[str, Any]] = {
    "tikhonov_differences": {"step": 0.1},
    "transformed": {"transform": {"name": "fgsm", "budget": 0.1}},
}


def _trained(m: nn.Module, d: Any, **options: Any) -> Any:
    return fp.train(m, d, **{"epochs": 2, "batch_size": 5, "learning_rate": 0.1, **options})


TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "validation": {"validation": DATA, "schedule": "cosine", "weight_decay": 0.1},
    "interpolation": {"until": "interpolation", "epochs": 3, "on_failure": "flag"},
    **{name: {"optimizer": name} for name in OPTIMIZERS if name != "sgdl"},
    "sgdl": {"optimizer": {"name": "sgdl", "noise": 0.01}},
    "parts": {
        "penalties": [(0.1, "jacobian_frobenius"), (0.1, "spectral_norm")],
        "transforms": [{"name": "mixup", "alpha": 0.4}, {"name": "pgd", "budget": 0.1}],
        "constraints": ["unit_rows"],
    },
}


def _values(result: Any) -> list[Tensor]:
    """Everything numeric in a result: its fields, or the leaves."""
    if dataclasses.is_dataclass(result):
        result = [getattr(result, entry.name) for entry in dataclasses.fields(result) if entry.name != "settings"]
    return [torch.as_tensor(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor | int | float)]


def _assert_same(found: Any, expected: Any) -> None:
    one, other = _values(found), _values(expected)
    assert len(one) == len(other) > 0
    for value, own in zip(one, other, strict=True):
        value = value.held if isinstance(value, Remote) else value
        torch.testing.assert_close(value, own, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(("network", "place", "name"), CASES)
def test_a_probe_gives_the_numbers_of_the_cpu(network: str, place: str, name: str) -> None:
    probe = PROBES[name]
    expected = probe(NETWORKS[network], DATA)
    with Elsewhere():
        data = DATA if place == "cpu" else fp.LabelledData(Remote(DATA.inputs), Remote(DATA.labels), classes=3)
        found = probe(elsewhere.move(NETWORKS[network]), data)
    _assert_same(found, expected)
    if isinstance(found, fp.Result):
        values = {name: value for name, value in vars(found).items() if name != "labels"}
        assert not any(isinstance(value, Remote) for value in tree_leaves(values))


def _passed(m: nn.Module) -> fp.ForwardPass:
    device = next(m.parameters()).device
    inputs, labels = DATA.inputs.double().to(device), DATA.labels.to(device)
    return fp.ForwardPass(m.train(), inputs, labels, key=(0,), updates=False)


def _penalised(m: nn.Module, penalty: Any) -> list[Tensor]:
    value = penalty(_passed(m))
    found = torch.autograd.grad(value, list(m.parameters()), allow_unused=True)
    return [value.detach(), *(part for part in found if part is not None)]


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_has_the_value_and_gradient_of_the_cpu(name: str) -> None:
    build = partial(PENALTIES[name], **PENALTY_ARGUMENTS.get(name, {}))  # spectral_norm remembers vectors
    expected = _penalised(copy.deepcopy(NETWORKS["smooth"]), build())
    with Elsewhere():
        found = _penalised(elsewhere.move(NETWORKS["smooth"]), build())
    assert all(isinstance(part, Remote) for part in found)
    _assert_same(found, expected)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_gives_the_samples_of_the_cpu(name: str) -> None:
    transform = TRANSFORMS[name](**ARGUMENTS[name])
    expected = transform(_passed(copy.deepcopy(NETWORKS["cnn"])))
    with Elsewhere():
        points, labels = transform(_passed(elsewhere.move(NETWORKS["cnn"])))
    assert isinstance(points, Remote)
    _assert_same([points.detach(), labels], [expected[0].detach(), expected[1]])


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_gives_the_weights_of_the_cpu(name: str) -> None:
    arguments = {"unit_rows": {}, "box": {"low": -0.1, "high": 0.1}}.get(
        name, {"radius": 0.1} if name == "ball" else {"bound": 0.5}
    )
    weights = []
    with Elsewhere():
        for module in (copy.deepcopy(NETWORKS["cnn"]), elsewhere.move(NETWORKS["cnn"])):
            constraint = CONSTRAINTS[name](**arguments)
            constraint(module, _passed(module).layers)
            weights.append([value.detach() for value in module.parameters()])
    assert all(isinstance(part, Remote) for part in weights[1])
    _assert_same(weights[1], weights[0])


@pytest.mark.parametrize("name", TRAININGS)
def test_training_gives_the_weights_of_the_cpu(name: str, tmp_path: Path) -> None:
    network = NETWORKS["mlp" if name == "adam" else "cnn"]  # a bias before BatchNorm has no gradient but rounding
    expected = _trained(network, DATA, **TRAININGS[name])
    with Elsewhere():
        found = _trained(elsewhere.move(network), DATA, **TRAININGS[name])
    weights = [value.detach() for value in found.model.parameters()]
    assert all(isinstance(value, Remote) for value in weights)
    _assert_same(weights, [value.detach() for value in expected.model.parameters()])
    _assert_same(found.history[-1]["train_loss"], expected.history[-1]["train_loss"])
