"""Copies of a module: the same function, each tensor once, and nothing shared with the caller."""

import copy
import functools
import types
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.copies import copy_with_places, structural_copy
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network
from flatprobe.network.storage import storage_of
from flatprobe.network.weights import move, norm, weights_of
from tests.helpers import foreign, strange, strange_modules

X = strange.data().inputs


def storages(module: nn.Module) -> set[int | None]:
    return {storage_of(value) for value in (*module.parameters(), *module.buffers())}


@pytest.mark.parametrize("name", strange.NETWORKS)
def test_property_a_copy_is_the_same_function_and_shares_no_tensor(name: str) -> None:
    model = strange.network(name)
    inputs = X.to(next(model.parameters()).dtype)
    copied = structural_copy(model)
    with torch.no_grad():
        assert torch.equal(copied(inputs.clone()), model(inputs.clone()))
    assert not storages(copied) & storages(model)
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(type(p) is nn.Parameter for p in copied.parameters())
    assert not copied.training


@pytest.mark.parametrize("name", strange.NETWORKS)
def test_slow_reference_other_weights_reach_every_place_that_a_tensor_has(name: str) -> None:
    """The network at twice its weights, against a model of the same class whose parameters were doubled in place."""
    if name in {"compiled", "inner compiled", "data parallel", "orthogonal"}:
        return  # other names inside; an orthogonal matrix stays itself at twice its raw weights
    model, doubled = strange.network(name), strange.network(name)
    network = Network(model)
    inputs = network.prepare(X)
    inspect_network(network, inputs)
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter.mul_(2)
        expected = doubled(inputs.clone())
        found = network(inputs, {key: 2 * value for key, value in network.weights.items()})
    torch.testing.assert_close(found, expected, rtol=1e-6 if found.dtype == torch.float32 else 1e-12, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), strange.network(name)(inputs.clone()), rtol=1e-6, atol=1e-12)


def test_closed_form_a_layer_under_two_names_is_one_layer_with_one_name() -> None:
    copied = copy_with_places(strange_modules.TwoNames())
    assert copied.module.fc is copied.module.layers[0]
    assert list(copied.places) == ["fc.weight", "fc.bias", "layers.1.weight", "layers.1.bias"]


class Holds(nn.Module):
    """Holds things that a copy must refer to its own modules with, or share."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.calls: dict[str, Any] = {
            "method": self.layer.forward,
            "partial": functools.partial(self.apply_to, scale=2.0),
            "closure": self.closure(),
            "namespace": types.SimpleNamespace(layer=self.layer),
        }
        self.config = types.MappingProxyType({"a": 1})  # cannot be copied

    def closure(self) -> Any:
        layer = self.layer

        def call(x: Tensor, *, through: nn.Module = layer) -> Tensor:
            return through(x) + layer(x)

        return call

    def apply_to(self, x: Tensor, scale: float) -> Tensor:
        return scale * self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        own = self.calls["namespace"].layer(x)
        return own + self.calls["method"](x) + self.calls["partial"](x) + self.calls["closure"](x)


def test_closed_form_methods_partials_closures_and_namespaces_follow_the_weights() -> None:
    model = Holds().double().eval()
    network = Network(model)
    zero = {name: torch.zeros_like(value) for name, value in network.weights.items()}
    with torch.no_grad():
        assert torch.equal(network(X, zero), torch.zeros(len(X), 3).double())
        torch.testing.assert_close(network(X), 6 * model.layer(X), rtol=1e-12, atol=1e-12)
    assert structural_copy(model).config is model.config


def test_complex_lazy_and_scripted_networks_are_refused_with_a_fix() -> None:
    layer = nn.Linear(6, 3)
    layer.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"'phase' of Linear is complex .*as two parameters"):
        Network(layer.eval())
    with pytest.raises(ValueError, match=r"'weight' of a lazy layer .* one batch passed before"):
        structural_copy(nn.LazyLinear(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.Linear(6, 3).eval(), torch.ones(1, 6))
    with pytest.raises(TypeError, match=r"TorchScript module.*load scripted.state_dict\(\)"):
        structural_copy(scripted)


def test_a_tensor_with_a_graph_among_the_attributes_is_copied_without_it() -> None:
    """`copy.deepcopy` refuses it, and so did four functions, depending on what was called before."""
    model = strange_modules.Keeps().double().eval()
    kept = model(X).sum() and model.features
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    copied = structural_copy(model)
    assert torch.equal(copied.features, kept)
    assert copied.features.is_leaf
    assert model.features is kept


def tied(seed: int = 0) -> nn.Module:
    return foreign.built(foreign.Tied, seed)


def test_closed_form_tied_weights_move_together_and_count_once() -> None:
    model, data = tied(), foreign.data("tied")
    risk = fp.EmpiricalRisk(model, data)
    assert "last.weight" not in risk.center
    assert sum(value.numel() for value in risk.center.values()) == sum(p.numel() for p in model.parameters())
    u = {"first.weight": torch.full_like(risk.center["first.weight"], 0.02)}
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.first.weight += 0.02
    assert by_hand.last.weight is by_hand.first.weight
    assert risk(move(risk.center, u, 1.0)) == fp.EmpiricalRisk(by_hand, data)()
    assert risk.along([risk.center, u])([1.0, 1.0]) == fp.EmpiricalRisk(by_hand, data)()
    h = 1e-6
    slope = (risk(move(risk.center, u, h)).loss - risk(move(risk.center, u, -h)).loss) / (2 * h)
    gradient = risk.gradient()["first.weight"]  # through both places
    assert float((gradient * u["first.weight"]).sum()) == pytest.approx(slope, rel=1e-6)
    radii = fp.flatness_radius(risk, directions=2)
    assert norm({name: value for name, value in risk.center.items() if name in radii.settings["selected"]}) == norm(
        weights_of(model)
    )


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_hooks_on_gradients_change_no_derivative_of_the_function(kind: str) -> None:
    model, hooked = strange.network("plain"), strange.network("plain")
    halve = (lambda _m, *parts: tuple(p / 2 for p in parts[0] if p is not None))  # fmt: skip # noqa: E731
    getattr(hooked.body[1], kind)(halve)
    expected, found = (fp.EmpiricalRisk(m, strange.data()).gradient() for m in (model, hooked))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_copy_made_in_inference_mode_can_be_differentiated() -> None:
    model = strange.network("plain")
    with torch.inference_mode():
        copied = structural_copy(model)
    assert not any(value.is_inference() for value in copied.parameters())
    copied(X).sum().backward()
