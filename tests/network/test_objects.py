"""Python objects around a network: functions, references, containers, slots and what is shared."""

import functools
import types
import weakref
from collections import defaultdict, deque, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatprobe.network.copies import structural_copy
from flatprobe.network.network import Network
from tests.helpers import strange

X = strange.data().inputs


Pair = namedtuple("Pair", ["layer", "scale"])


SHARED = nn.Linear(6, 3).double()


WEIGHT = nn.Parameter(torch.ones(3, 6, dtype=torch.float64))


def apply_shared(x: Tensor) -> Tensor:
    return SHARED(x)


def through_another(x: Tensor) -> Tensor:
    return apply_shared(x)


def with_an_inner_function(x: Tensor) -> Tensor:
    return (lambda z: SHARED(z))(x)


def by_its_parameter(x: Tensor) -> Tensor:
    return x @ WEIGHT.T


def _default(layer: nn.Module) -> Any:
    def call(x: Tensor, through: nn.Module = layer) -> Tensor:
        return through(x)

    return call


def _keyword(layer: nn.Module) -> Any:
    def call(x: Tensor, *, through: nn.Module = layer) -> Tensor:
        return through(x)

    return call


def _attribute(layer: nn.Module) -> Any:
    def call(x: Tensor) -> Tensor:
        return call.scale * layer(x)  # type: ignore[attr-defined]

    call.scale = 1.0  # type: ignore[attr-defined]
    return call


def _closure_over_a_partial(layer: nn.Module) -> Any:
    inside = functools.partial(_applied, layer=layer)
    return lambda x: inside(x)


def _applied(x: Tensor, layer: nn.Module) -> Tensor:
    return layer(x)


# A layer -> something that applies it to x.
HELD: dict[str, Any] = {
    "default": _default,
    "keyword default": _keyword,
    "function with an attribute": _attribute,
    "partial's keyword": lambda layer: functools.partial(_applied, layer=layer),
    "closure over a partial": _closure_over_a_partial,
    "partials": lambda layer: [functools.partial(_applied, layer=part) for part in (nn.Identity(), layer)],
    "global name": lambda _: apply_shared,
    "global function": lambda _: through_another,
    "inner function": lambda _: with_an_inner_function,
    "global parameter": lambda _: by_its_parameter,
    "reference": lambda layer: weakref.ref(layer),
    "named tuple": lambda layer: Pair(layer, 1.0),
    "deque": lambda layer: deque([layer]),
    "default dict": lambda layer: defaultdict(list, a=[layer]),
    "method of an object": lambda layer: types.SimpleNamespace(layer=layer, call=layer.forward).call,
}


TAKEN: dict[str, Any] = {
    "partials": lambda held: held[1],
    "reference": lambda held: held(),
    "named tuple": lambda held: held.layer,
    "deque": lambda held: held[0],
    "default dict": lambda held: held["a"][0],
}


class Holds(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = SHARED, how
        self.weight = WEIGHT
        self.held = HELD[how](self.layer)

    def forward(self, x: Tensor) -> Tensor:
        return TAKEN.get(self.how, lambda held: held)(self.held)(x)


@pytest.mark.parametrize("how", HELD)
def test_closed_form_whatever_holds_a_layer_follows_the_weights(how: str) -> None:
    model = Holds(how).eval()
    network = Network(model)
    with torch.no_grad():
        found = network(X, {name: 2 * value for name, value in network.weights.items()})
        torch.testing.assert_close(found, 2 * model(X), rtol=1e-12, atol=0)
    assert type(network.module.held) is type(model.held)
    if how == "function with an attribute":
        assert network.module.held.scale == 1.0
    if how == "default dict":
        assert network.module.held["new"] == []


def test_a_list_of_partials_is_copied_one_by_one() -> None:
    """What is made on the way and let go of must not lend its identity to what comes next."""
    layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(20)])
    layers.calls = [functools.partial(_applied, layer=layer) for layer in layers]
    copied: Any = structural_copy(layers)
    assert all(call.keywords["layer"] is layer for call, layer in zip(copied.calls, copied, strict=True))


def test_a_hook_of_a_copys_loading_sees_the_copy() -> None:
    model: Any = strange.network("plain")
    model._register_load_state_dict_pre_hook(lambda module, *_args: setattr(module, "loaded", True), with_module=True)
    copied: Any = structural_copy(model)
    copied.load_state_dict(model.state_dict())
    assert copied.loaded
    assert not hasattr(model, "loaded")


class Slotted:
    __slots__ = ("layer",)


class PartlySlotted(Slotted):
    pass


class Released:
    """Gives something back at its end, once."""

    ended = 0

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __del__(self) -> None:
        type(self).ended += 1


class Single:
    """An object that its class hands out."""

    def __new__(cls, _layer: nn.Module) -> "Single":
        return super().__new__(cls)

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer


def test_slots_are_copied_and_what_drives_the_training_or_has_its_own_new_is_shared() -> None:
    model: Any = strange.network("plain")
    model.slotted, model.released, model.single = Slotted(), Released(model.head), Single(model.head)
    model.partly = PartlySlotted()
    model.slotted.layer = model.partly.layer = model.partly.other = model.head
    model.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = Released.ended
    copied: Any = structural_copy(model)
    for name in ("slotted", "partly"):
        assert getattr(copied, name) is not getattr(model, name)
        assert getattr(copied, name).layer is copied.head
    assert copied.partly.other is copied.head
    assert copied.released is model.released
    assert copied.single is model.single
    assert copied.optimizer is model.optimizer
    del copied
    assert Released.ended == before
