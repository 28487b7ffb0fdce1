"""Weights that forward reads: past self, through views, in lists and closures, unregistered."""

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from tests.helpers import strange, strange_modules

DATA = strange.data(40)


LAYER = nn.Linear(6, 3).double()


def test_a_forward_that_reads_its_weights_past_self_is_refused_where_weights_move() -> None:
    class Past(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LAYER

        def forward(self, x: Tensor) -> Tensor:
            return LAYER(x)

    data = strange.data()
    assert len(fp.functional_margins(Past().eval(), data)) == len(data)
    with pytest.raises(ValueError, match=r"Past reads 'layer\.\w+' through a view, or past the layer"):
        fp.EmpiricalRisk(Past().eval(), data)


def test_a_view_of_a_parameter_kept_beside_it_is_refused_where_weights_move() -> None:
    class Viewed(strange_modules.Nested):
        transposed: Tensor

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) @ self.transposed + 0 * self.head(self.body(x))

    model = Viewed().double().eval()
    model.transposed = model.head.weight.data.T
    with pytest.raises(ValueError, match=r"reads 'head\.weight' through a view"):
        fp.EmpiricalRisk(model, strange.data())


def test_a_view_of_a_weight_is_seen_in_a_list_too() -> None:
    class Joined(strange_modules.Nested):
        row: Tensor

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ torch.stack([self.row, self.row, self.row])

    model: Any = strange.built(Joined)
    model.row = model.head.weight.data[0, :3]
    with pytest.raises(ValueError, match=r"reads 'head\.weight' through a view"):
        fp.EmpiricalRisk(model, DATA)


def _parameter_default(weight: Tensor) -> Any:
    def call(x: Tensor, own: Tensor = weight) -> Tensor:
        return x @ own.T

    return call


@pytest.mark.parametrize("how", ["tuple", "default"])
def test_a_weight_that_nothing_can_take_the_place_of_is_refused_where_weights_move(how: str) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.held = (self.layer.weight,)
            self.call = _parameter_default(self.layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + (x @ self.held[0].T if how == "tuple" else self.call(x))

    model, data = Fixed(), strange.data()
    model.layer.double()
    model.held, model.call = (model.layer.weight,), _parameter_default(model.layer.weight)
    logits = model.eval()(data.inputs).detach()
    others = logits.masked_fill(nn.functional.one_hot(data.labels, 3).bool(), -torch.inf).amax(1)
    expected = logits.gather(1, data.labels[:, None]).squeeze(1) - others
    torch.testing.assert_close(fp.functional_margins(model, data).values, expected)
    with pytest.raises(ValueError, match=r"Fixed reads 'layer\.weight' through a view, or past the layer"):
        fp.EmpiricalRisk(model, data)


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
                return self.head(x @ self.kept.T)
            layer = {"list": 0, "dict": "a", "tuple": 0, "list of a list": 0}[kind]
            found = self.kept[layer]
            return self.head((found[0] if kind == "list of a list" else found)(x))

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


def test_a_weight_that_is_not_registered_is_counted_once_however_often_it_is_used() -> None:
    class Loose(strange_modules.Nested):
        def __init__(self) -> None:
            super().__init__()
            self.kept = [torch.eye(3, dtype=torch.float64, requires_grad=True)]

        def forward(self, x: Tensor) -> Tensor:
            z = super().forward(x) @ self.kept[0]
            for _ in range(60):  # as many ways through the graph as 2^60
                z = (z + z.tanh()) / 2
            return z @ self.kept[0]

    with pytest.raises(ValueError, match=r"depend on 1 tensors .* of shapes \(3, 3\);"):
        fp.EmpiricalRisk(strange.built(Loose), DATA)


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


VECTORS = fp.LabelledData(torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3)


ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda x: x.detach().requires_grad_(),
    "cloned": lambda x: x.detach().clone().requires_grad_(),
    "changed": lambda x: (2 * x.detach()).view(len(x), 2, 2).requires_grad_(),
    "kept": lambda x: x if x.requires_grad else x.clone().requires_grad_(),
}


class Energy(nn.Module):
    """Logits made of the gradient of an energy in the inputs."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head, self.how = nn.Linear(4, 8), nn.Linear(4, 3), how

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = ENERGIES[self.how](x)
            energy = self.body(x.flatten(1)).tanh().square().sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return self.head(force.flatten(1))


@pytest.mark.parametrize("how", ENERGIES)
def test_leaves_that_forward_makes_of_its_inputs_are_no_weights(how: str) -> None:
    model = strange.seeded(lambda: Energy(how).double())
    risk = fp.EmpiricalRisk(model, VECTORS)
    assert risk().loss == pytest.approx(float(F.cross_entropy(model(VECTORS.inputs.double()), VECTORS.labels).detach()))
    assert fp.hessian_eigenvalues(risk).eigenvalues.isfinite().all()
    assert fp.flatness_radius(risk, directions=1).reached.all()


def test_a_weight_of_the_inputs_shape_in_a_plain_list_is_still_named() -> None:
    class Plain(Energy):
        def __init__(self) -> None:
            super().__init__("cloned")
            self.plain = [nn.Linear(4, 8).double()]

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.plain[0](x)[:, :3]

    with pytest.raises(ValueError, match=r"depend on 2 tensors that require gradients .*, of shapes \(8"):
        fp.EmpiricalRisk(strange.seeded(lambda: Plain().double()), VECTORS)
