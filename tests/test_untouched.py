"""Whatever is called on whatever network: nothing that belongs to the caller is changed."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.data import LabelledData
from tests.helpers import strange, strange_modules

Function = Callable[[nn.Module, LabelledData], Any]


def _risk(model: nn.Module, data: LabelledData) -> fp.EmpiricalRisk:
    return fp.EmpiricalRisk(model, data)


def _endpoints(model: nn.Module) -> list[Any]:
    return [model, {name: 1.1 * value if value.is_floating_point() and name.endswith("weight") else value
                    for name, value in model.state_dict().items()}]  # fmt: skip


FUNCTIONS: dict[str, Function] = {
    "risk": lambda m, d: _risk(m, d)(),
    "gradient": lambda m, d: _risk(m, d).gradient(),
    "flatness_radius": lambda m, d: fp.flatness_radius(_risk(m, d), directions=1),
    "random_slice": lambda m, d: fp.random_slice(_risk(m, d), dimensions=1, steps=3),
    "interpolate": lambda m, d: fp.interpolate(
        _risk(m, d), _endpoints(m), fp.segment(steps=2), batch_norm="interpolate" if _normed(m) else None
    ),
    "gradient_noise": lambda m, d: fp.gradient_noise(_risk(m, d), batch_size=4, draws=2),
    "hessian_eigenvalues": lambda m, d: fp.hessian_eigenvalues(_risk(m, d), parameters="last"),
    "hessian_trace": lambda m, d: fp.hessian_trace(_risk(m, d), draws=2),
    "worst_case_sharpness": lambda m, d: fp.worst_case_sharpness(_risk(m, d)),
    "weight_norms": lambda m, _: fp.weight_norms(m, (6,), path=False),
    "functional_margins": fp.functional_margins,
    "scores": fp.scores,
    "jacobian_norms": fp.jacobian_norms,
    "lanczos": lambda m, d: fp.jacobian_norms(m, d, method="lanczos"),
    "jacobian_maximum": lambda m, d: fp.jacobian_maximum(m, d, along="segments", pairs=2, points=2),
    "geometric_margins": lambda m, d: fp.geometric_margins(m, d, lower=(), upper=("ddn", "deepfool"), steps=3),
    "certified": lambda m, d: fp.geometric_margins(m, d, upper=("ddn",), steps=2),
    "gaussian_robustness": lambda m, d: fp.gaussian_robustness(m, d, gammas=[0.1], draws=2),
    "smoothed_certificate": lambda m, d: fp.smoothed_certificate(m, d, sigma=0.1, draws=20),
    "adversarial_points": lambda m, d: fp.adversarial_points(m, d, steps=2),
    "decision_regions": lambda m, d: fp.decision_regions(m, d.inputs[:3], steps=3),
    "adversarial_accuracy": lambda m, d: fp.adversarial_accuracy(m, d, budgets=[0.1], steps=2),
    "audit": lambda m, d: fp.audit(m, d, probes=["functional_margins"]),
    "compare": lambda m, d: fp.compare({"a": m}, d, probes=["functional_margins", "jacobian_norms"]),
    "train": lambda m, d: fp.train(m, d, epochs=1),
    "train_many": lambda m, d: fp.train_many([m, m], d, epochs=1),
    "train with a penalty": lambda m, d: fp.train(m, d, epochs=1, penalties=[(0.1, "double_backpropagation")]),
}

# What may be refused, and the words that say so; everything else must work.
REFUSED = {
    "audit": "at least one change must apply",
    "flatness_radius": "rounding",  # the orthogonal layer's map jumps at its own weights
    "random_slice": "rounding",
    "train_many": "networks one by one with fp.train",  # which ones: `tests.training.test_many`
    "weight_norms": "no linear or zero-padded convolutional layer",
}


def _normed(model: nn.Module) -> bool:
    return any(isinstance(layer, nn.BatchNorm1d) for layer in model.modules())


def everything(model: nn.Module) -> dict[str, Any]:
    """All that a caller could find changed: tensors to the bit, objects by identity, the process's switches."""
    found: dict[str, Any] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, value in named:
        found[f"tensor {name}"] = (id(value), type(value), value.requires_grad, value._version, value.stride())
        found[f"bits {name}"] = value.detach().clone()
        found[f"grad {name}"] = None if value.grad is None else (id(value.grad), value.grad._version)
    for name, layer in model.named_modules(remove_duplicate=False):
        for key, value in vars(layer).items():
            entries = value.items() if isinstance(value, dict) else value if isinstance(value, list) else ()
            held = [tuple(map(id, entry)) if isinstance(entry, tuple) else id(entry) for entry in entries]
            found[f"attribute {name}.{key}"] = (value if isinstance(value, bool | int | str) else id(value), held)
            if isinstance(value, Tensor):
                found[f"held {name}.{key}"] = value.detach().clone()
    found["states"] = (torch.get_rng_state().tolist(), str(np.random.get_state()))
    found["switches"] = (
        torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu"),
        torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
    )  # fmt: skip
    return found


def assert_same(after: dict[str, Any], before: dict[str, Any]) -> None:
    assert after.keys() == before.keys()
    for name, value in before.items():
        same = torch.equal(after[name], value) if isinstance(value, Tensor) else after[name] == value
        assert same, f"{name} changed"


def prepared(name: str) -> nn.Module:
    """A network as its user left it: it has been called, and its parameters have gradients."""
    model = strange.network(name)
    with torch.no_grad():
        model(strange.data().inputs.to(next(model.parameters()).dtype))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


@pytest.mark.filterwarnings(
    "ignore:.* is not certified", "ignore:.* norms are not known", "ignore:.*NestedTensor", "ignore:Full backward hook"
)
@pytest.mark.parametrize("name", strange.NETWORKS)
def test_property_no_function_changes_what_the_caller_holds(name: str) -> None:
    data, model = strange.data(), prepared(name)
    inputs, before = data.inputs.clone(), everything(model)
    for function, call in FUNCTIONS.items():
        message = ""
        try:
            call(model, data)
        except ValueError as error:
            message = str(error)
        assert REFUSED.get(function, "nothing") in message or not message, f"{function} refuses {name}: {message}"
        assert_same(everything(model), before)
        assert torch.equal(data.inputs, inputs)


ENDING: dict[str, Any] = {"calls": 0, "at": -1, "error": RuntimeError("stopped")}


class Ends(strange_modules.Nested):
    """Stops in the middle of a call, when the script says so."""

    def forward(self, x: Tensor) -> Tensor:
        ENDING["calls"] += 1
        if ENDING["calls"] == ENDING["at"]:
            raise ENDING["error"]
        return super().forward(x)


@pytest.mark.parametrize("error", [RuntimeError("stopped"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name != "weight_norms"])  # traced, not run
def test_property_nothing_is_changed_by_a_call_that_ends_in_the_middle(
    function: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = strange.data(), Ends().double().eval()
    before = everything(model)
    for name, value in {"at": -1, "calls": 0, "error": error}.items():
        monkeypatch.setitem(ENDING, name, value)
    FUNCTIONS[function](model, data)
    passes = ENDING["calls"]
    if not passes:
        return  # traced, and never run
    for at in sorted({1, 2, 3, passes // 2, passes} - {0}):
        ENDING.update(at=at, calls=0)
        refused = function == "compare" and isinstance(error, Exception)  # a comparison notes it, and goes on
        with suppress(UserWarning) if refused else pytest.raises((type(error), ValueError)):
            FUNCTIONS[function](model, data)
        assert_same(everything(model), before)
