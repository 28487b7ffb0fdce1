"""What a copy refers to its own parts with: functions, hooks, references and containers; and what it shares."""

import functools
import types
import weakref
from collections import defaultdict, deque, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.copies import structural_copy
from flatprobe.network.network import Network
from tests.helpers import strange

X = strange.data().inputs
Pair = namedtuple("Pair", ["layer", "scale"])
SHARED = nn.Linear(6, 3).double()
WEIGHT = nn.Parameter(torch.ones(3, 6, dtype=torch.float64))


def apply_shared(x: Tensor) -> Tensor:
    return SHARED(x)  # type: ignore[no-any-return]


def through_another(x: Tensor) -> Tensor:
    return apply_shared(x)


def with_an_inner_function(x: Tensor) -> Tensor:
    return (lambda z: SHARED(z))(x)  # type: ignore[no-any-return]


def by_its_parameter(x: Tensor) -> Tensor:
    return x @ WEIGHT.T


def _default(layer: nn.Module) -> Any:
    def call(x: Tensor, through: nn.Module = layer) -> Tensor:
        return through(x)  # type: ignore[no-any-return]

    return call


def _parameter_default(weight: Tensor) -> Any:
    def call(x: Tensor, own: Tensor = weight) -> Tensor:
        return x @ own.T

    return call


def _keyword(layer: nn.Module) -> Any:
    def call(x: Tensor, *, through: nn.Module = layer) -> Tensor:
        return through(x)  # type: ignore[no-any-return]

    return call


def _attribute(layer: nn.Module) -> Any:
    def call(x: Tensor) -> Tensor:
        return call.scale * layer(x)  # type: ignore[attr-defined,no-any-return]

    call.scale = 1.0  # type: ignore[attr-defined]
    return call


def _closure_over_a_partial(layer: nn.Module) -> Any:
    inside = functools.partial(_applied, layer=layer)
    return lambda x: inside(x)


def _applied(x: Tensor, layer: nn.Module) -> Tensor:
    return layer(x)  # type: ignore[no-any-return]


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
        return TAKEN.get(self.how, lambda held: held)(self.held)(x)  # type: ignore[no-any-return]


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


@pytest.mark.parametrize("how", ["tuple", "default"])
def test_a_weight_that_nothing_can_take_the_place_of_is_refused_where_weights_move(how: str) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.held = (self.layer.weight,)
            self.call = _parameter_default(self.layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + (x @ self.held[0].T if how == "tuple" else self.call(x))  # type: ignore[no-any-return]

    model, data = Fixed(), strange.data()
    model.layer.double()
    model.held, model.call = (model.layer.weight,), _parameter_default(model.layer.weight)
    logits = model.eval()(data.inputs).detach()
    others = logits.masked_fill(nn.functional.one_hot(data.labels, 3).bool(), -torch.inf).amax(1)
    expected = logits.gather(1, data.labels[:, None]).squeeze(1) - others
    torch.testing.assert_close(fp.functional_margins(model, data).values, expected)
    with pytest.raises(ValueError, match=r"Fixed reads 'layer\.weight' through a view, or past the layer"):
        fp.EmpiricalRisk(model, data)


def test_a_list_of_partials_is_copied_one_by_one() -> None:
    """What is made on the way and let go of must not lend its identity to what comes next."""
    layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(20)])
    layers.calls = [functools.partial(_applied, layer=layer) for layer in layers]  # type: ignore[assignment]
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


def test_what_compilation_and_mixed_precision_put_around_a_layer_is_taken_off() -> None:
    plain = strange.network("plain")
    expected = plain(X).detach()
    compiled = strange.network("plain")
    compiled.compile(backend="eager")
    assert structural_copy(compiled)._compiled_call_impl is None

    class Decorated(strange.Nested):
        @torch.compile(backend="eager")  # type: ignore[untyped-decorator]
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))  # type: ignore[no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        decorated = Decorated().double().eval()
    copied = structural_copy(decorated)
    assert not hasattr(copied.forward, "_torchdynamo_orig_callable")
    assert torch.equal(copied(X), expected)

    rounding: Any = strange.network("plain")  # as accelerate does in mixed precision
    rounding._original_forward = rounding.forward
    rounding.forward = lambda x: rounding._original_forward(x).bfloat16().double()
    assert not torch.equal(rounding(X), expected)
    copied = structural_copy(rounding)
    assert torch.equal(copied(X), expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(copied(X), torch.zeros_like(expected))

    lightning: Any = strange.network("plain")  # as Lightning does to a module that is compiled whole
    lightning._compiler_ctx = {"compiler": "dynamo", "original_forward": lightning.forward}
    lightning.forward = lambda x: 2 * lightning.body(x)
    assert torch.equal(structural_copy(lightning)(X), expected)


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
