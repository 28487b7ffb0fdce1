"""The copy that everything is measured on: each thing once, and nothing of the caller's in it."""

import copy
import functools
import types
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.copies import copied_with_places, structural_copy
from flatprobe.network.inspection import inspected
from flatprobe.network.network import Network
from flatprobe.network.storage import storage_of
from tests.helpers import strange

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
    inspected(network, inputs)
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter.mul_(2)
        expected = doubled(inputs.clone())
        found = network(inputs, {key: 2 * value for key, value in network.weights.items()})
    torch.testing.assert_close(found, expected, rtol=1e-6 if found.dtype == torch.float32 else 1e-12, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), strange.network(name)(inputs.clone()), rtol=1e-6, atol=1e-12)


def test_closed_form_a_layer_under_two_names_is_one_layer_with_one_name() -> None:
    copied = copied_with_places(strange.TwoNames())
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
        return own + self.calls["method"](x) + self.calls["partial"](x) + self.calls["closure"](x)  # type: ignore[no-any-return]


def test_closed_form_methods_partials_closures_and_namespaces_follow_the_weights() -> None:
    model = Holds().double().eval()
    network = Network(model)
    zero = {name: torch.zeros_like(value) for name, value in network.weights.items()}
    with torch.no_grad():
        assert torch.equal(network(X, zero), torch.zeros(len(X), 3).double())
        torch.testing.assert_close(network(X), 6 * model.layer(X), rtol=1e-12, atol=1e-12)
    assert structural_copy(model).config is model.config


LAYER = nn.Linear(6, 3).double()


def test_a_forward_that_reads_its_weights_past_self_is_refused_where_weights_move() -> None:
    class Past(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LAYER

        def forward(self, x: Tensor) -> Tensor:
            return LAYER(x)  # type: ignore[no-any-return]

    data = strange.data()
    assert len(fp.functional_margins(Past().eval(), data)) == len(data)
    with pytest.raises(ValueError, match=r"Past reads 'layer\.\w+' through a view, or past the layer"):
        fp.EmpiricalRisk(Past().eval(), data)


def test_a_view_of_a_parameter_kept_beside_it_is_refused_where_weights_move() -> None:
    class Viewed(strange.Nested):
        transposed: Tensor

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) @ self.transposed + 0 * self.head(self.body(x))  # type: ignore[no-any-return]

    model = Viewed().double().eval()
    model.transposed = model.head.weight.data.T
    with pytest.raises(ValueError, match=r"reads 'head\.weight' through a view"):
        fp.EmpiricalRisk(model, strange.data())


@pytest.mark.parametrize("kind", ["list", "dict", "tuple", "list of a list", "tensor"])
def test_weights_that_are_not_registered_are_refused_where_weights_move(kind: str) -> None:
    """A plain list of layers is left out of `parameters()`: its radius would be another network's."""

    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.Linear(6, 8).double()
            self.head = nn.Linear(8, 3)
            self.kept: Any = {
                "list": [layer], "dict": {"a": layer}, "tuple": (layer,), "list of a list": [nn.ModuleList([layer])],
                "tensor": layer.weight.detach().clone().requires_grad_(),
            }[kind]  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            if kind == "tensor":
                return self.head(x @ self.kept.T)  # type: ignore[no-any-return]
            layer = {"list": 0, "dict": "a", "tuple": 0, "list of a list": 0}[kind]
            found = self.kept[layer]
            return self.head((found[0] if kind == "list of a list" else found)(x))  # type: ignore[no-any-return]

    model, data = Loose().double().eval(), strange.data()
    with pytest.raises(ValueError, match=r"tensors that require gradients and are no parameters.*\(8, 6\).*ModuleList"):
        fp.EmpiricalRisk(model, data)
    with pytest.raises(ValueError, match="are no parameters"):
        fp.train(model, data, epochs=1)
    assert len(fp.functional_margins(model, data)) == len(data)  # a function of the inputs all the same
    loose = [model.kept] if kind == "tensor" else list(_parameters(model.kept))
    for value in loose:
        value.requires_grad_(requires_grad=False)
    assert fp.EmpiricalRisk(model, data)().loss > 0  # what is frozen is a constant


def _parameters(kept: Any) -> Any:
    for value in kept.values() if isinstance(kept, dict) else kept:
        yield from value.parameters()


@pytest.mark.parametrize("how", ["transposed parameter", "transposed data", "same data", "buffer"])
def test_different_tensors_in_one_memory_are_refused(how: str) -> None:
    first, second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    model = nn.Sequential(first, nn.Tanh(), second, nn.Linear(6, 3)).double().eval()
    if how == "transposed parameter":
        second.weight = nn.Parameter(first.weight.T)
    elif how == "transposed data":
        second.weight.data = first.weight.data.T
    elif how == "same data":
        second.weight.data = first.weight.data
    else:
        second.register_buffer("kept", first.weight.data)
    for call in (fp.EmpiricalRisk, fp.functional_margins, lambda m, d: fp.train(m, d, epochs=1)):
        with pytest.raises(ValueError, match=r"'0.weight' and '2.(weight|kept)' of Sequential are different tensors"):
            call(model, strange.data())  # type: ignore[operator]


def test_pieces_of_one_memory_that_do_not_overlap_are_taken() -> None:
    """As a flat vector of all weights, or two column blocks of one matrix."""
    layer = nn.Linear(6, 3).double()
    flat = torch.randn(24, dtype=torch.float64)
    layer.weight.data, layer.bias.data = flat[:18].view(3, 6), flat[18:21]
    assert fp.EmpiricalRisk(layer.eval(), strange.data())().loss > 0
    columns = torch.randn(6, 12, dtype=torch.float64)
    blocks = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)).double().eval()
    blocks[0].weight.data, blocks[1].weight.data = columns[:, ::2], columns[:, 1::2]
    assert fp.EmpiricalRisk(blocks, strange.data())().loss > 0


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
    model = strange.Keeps().double().eval()
    kept = model(X).sum() and model.features
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    copied = structural_copy(model)
    assert torch.equal(copied.features, kept)
    assert copied.features.is_leaf
    assert model.features is kept


HIDDEN: dict[str, Any] = {
    "list": lambda layer: [layer],
    "tuple": lambda layer: (layer,),
    "dict": lambda layer: {"0": layer},
    "list of a ModuleList": lambda layer: [nn.ModuleList([layer])],
    "closure": lambda layer: lambda inputs: layer(inputs),
    "object": lambda layer: types.SimpleNamespace(layer=layer),
    "tensor": lambda _: torch.ones(7, requires_grad=True),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_weights_that_are_not_registered_are_told_of_where_no_pass_shows_them(kind: str, tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    layer = nn.Linear(4, 4)
    model.hidden = HIDDEN[kind](layer)
    shapes = r"\(7,\)" if kind == "tensor" else r"\(4, 4\), \(4,\)"
    with pytest.warns(
        UserWarning, match=rf"Sequential holds weights .* of shapes {shapes}: the norms .* nn.ModuleList"
    ):
        fp.weight_norms(model, (4,))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.warns(
        UserWarning, match=rf"of shapes {shapes}: checkpoints do not hold them.* requires_grad_\(False\)"
    ):
        fp.load_checkpoint(tmp_path / "weights.pt", model)


def test_nothing_is_told_of_registered_weights_and_of_a_frozen_teacher(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    model.layers = [model[0]]
    model.teacher = [nn.Linear(3, 3).requires_grad_(requires_grad=False)]
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    fp.weight_norms(model, (4,))
    fp.load_checkpoint(tmp_path / "weights.pt", model)
