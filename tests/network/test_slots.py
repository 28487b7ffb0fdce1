"""Networks that remember something from one pass to the next are the same function at other weights all the same."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network
from flatprobe.network.slots import Slots
from tests.helpers import strange, strange_modules

X = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(10, 6).sin()


DATA = fp.LabelledData(X.float(), torch.arange(10) % 3)


class Helper:
    """An object that keeps what it is told to."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.inner: dict[str, Any] = {"deep": [None, {}]}


class Bare:
    """An object that holds nothing but what it will keep."""

    def __init__(self) -> None:
        self.kept: Any = None


def _remembering() -> Callable[[Any], Any]:
    kept = None

    def remember(found: Any) -> Any:
        nonlocal kept
        kept = found if kept is None else kept
        return kept

    return remember


class SlottedHelper:
    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: Any = None


class Remembering(nn.Module):
    """logits = head(x) scaled by the head's norm, which `remembered` computes at the first pass and keeps."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.kind = kind
        self.nested: dict[str, Any] = {"level": {"deeper": []}}
        self.helper, self.slotted, self.partial = Helper(), SlottedHelper(), Counter[str]()
        self.array, self.queue, self.seen = np.zeros(1), deque[Tensor](maxlen=2), set[float]()
        self.plain = torch.zeros(1)
        self.parts: list[Any] = [torch.zeros(1), np.zeros(1)]
        self.bare, self.closure = Bare(), _remembering()
        self.by_layer: dict[nn.Module, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * REMEMBERED[self.kind](self, self.head.weight.norm().detach())


def _once(holder: Any, key: Any, found: Any) -> Any:
    if not holder.get(key):
        holder[key] = found
    return holder[key]


def _in_nested_list(model: Remembering, norm: Tensor) -> Any:
    entries = model.nested["level"]["deeper"]
    if not entries:
        entries.append(norm)
    return entries[0]


def _in_helper(model: Remembering, norm: Tensor) -> Any:
    if model.helper.kept is None:
        model.helper.kept = norm
    return model.helper.kept


def _in_bare_helper(model: Remembering, norm: Tensor) -> Any:
    if model.bare.kept is None:
        model.bare.kept = norm
    return model.bare.kept


def _in_slot(model: Remembering, norm: Tensor) -> Any:
    if model.slotted.kept is None:
        model.slotted.kept = norm
    return model.slotted.kept


def _in_array(model: Remembering, norm: Tensor) -> Any:
    if not model.array[0]:
        model.array[0] = float(norm)
    return float(model.array[0])


def _in_queue(model: Remembering, norm: Tensor) -> Any:
    model.queue.append(norm)
    return model.queue[0]


def _in_set(model: Remembering, norm: Tensor) -> Any:
    model.seen.add(float(norm))
    return max(model.seen)


def _in_tensor(model: Remembering, norm: Tensor) -> Any:
    if not model.plain.any():
        model.plain.fill_(float(norm))
    return model.plain


def _in_part(model: Remembering, norm: Tensor) -> Any:
    if not model.parts[0].any():
        model.parts[0].fill_(float(norm))
    return model.parts[0]


REMEMBERED: dict[str, Callable[[Remembering, Tensor], Any]] = {
    "attribute": lambda model, norm: _once(vars(model), "found", norm),
    "dictionary in a dictionary": lambda model, norm: _once(model.nested["level"], "norm", norm),
    "list in dictionaries": _in_nested_list,
    "a helper's attribute": _in_helper,
    "a bare helper's attribute": _in_bare_helper,
    "a closure's variable": lambda model, norm: model.closure(norm),
    "a helper's dictionary": lambda model, norm: _once(model.helper.inner["deep"][1], "norm", norm),
    "a helper's slot": _in_slot,
    "array": _in_array,
    "deque": _in_queue,
    "set": _in_set,
    "counter": lambda model, norm: _once(model.partial, "norm", float(norm)),
    "by the layer": lambda model, norm: _once(model.by_layer, model.head, norm),
    "tensor without a name": _in_tensor,
    "tensor in a list": _in_part,
}


@pytest.fixture(params=REMEMBERED)
def model(request: pytest.FixtureRequest) -> Remembering:
    torch.manual_seed(0)
    return Remembering(request.param).eval()


def _expected(model: Remembering, scale: float) -> Tensor:
    """At scale w: scale^2 w x |w| without a bias."""
    weight, bias = model.head.weight.detach().double() * scale, model.head.bias.detach().double() * scale
    return (X @ weight.T + bias) * weight.norm()


@pytest.mark.parametrize("copied", [False, True], ids=["network", "copy"])
def test_what_a_pass_remembers_is_forgotten_before_the_next(model: Remembering, copied: bool) -> None:
    risk = fp.EmpiricalRisk(model, DATA)
    network = risk.network.copy(dtype=torch.float64) if copied else risk.network
    for scale in (1.0, 3.0, 0.5, 1.0):
        weights = {name: value * scale for name, value in network.weights.items()}
        found = network(network.prepare(X), weights)
        torch.testing.assert_close(found.double(), _expected(model, scale), rtol=1e-5, atol=1e-6)
    assert not model.nested["level"]["deeper"]
    assert model.nested["level"].keys() == {"deeper"}
    assert model.helper.kept is model.slotted.kept is model.bare.kept is None
    assert not any(map(len, (model.queue, model.seen, model.partial, model.by_layer)))
    assert not model.array.any()
    assert not model.plain.any()
    assert model.closure(None) is None
    assert not hasattr(model, "found")


def test_risk_at_other_weights_is_that_of_the_network_there(model: Remembering) -> None:
    risk = fp.EmpiricalRisk(model, DATA)
    expected = nn.functional.cross_entropy(_expected(model, 2.0), DATA.labels)
    moved = {name: 2 * value for name, value in risk.center.items()}
    assert risk(moved).loss == pytest.approx(float(expected), rel=1e-5)


def test_large_arrays_are_shared() -> None:
    model = Remembering("attribute")
    model.array = np.zeros(2**23 + 1)
    assert Slots(model).module.array is model.array
    model.array = np.zeros(2**10)
    assert Slots(model).module.array is not model.array


def test_networks_without_memory_keep_nothing() -> None:
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval())
    before = network.slots.attributes()
    network(X.float())
    network.slots.keep(before)
    assert not network.slots._kept


INPUTS = strange.data(40).inputs


class Caches(strange_modules.Nested):
    """Keeps the norm of its weights where an attribute is missing, in a list that is as long before, or in a set."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.entries, self.members = how, [None], {"none"}

    def forward(self, x: Tensor) -> Tensor:
        norm: Any = self.head.weight.norm()
        if self.how == "attribute":
            if not hasattr(self, "kept"):
                self.kept = norm
            norm = self.kept
        elif self.how == "list":
            if self.entries[0] is None:
                self.entries[0] = norm
            norm = self.entries[0]
        elif "none" in self.members:
            self.members.remove("none")
        else:
            norm = 0 * norm
        return super().forward(x) / (1 + norm)


@pytest.mark.parametrize("how", ["attribute", "list", "set"])
def test_slow_reference_what_a_pass_keeps_does_not_reach_the_next_one(how: str) -> None:
    network = Network(strange.built(Caches, how))
    inspect_network(network, INPUTS)
    for scale in (2.0, 3.0):
        model = strange.built(Caches, how)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
            found = network(INPUTS, {name: scale * value for name, value in network.weights.items()})
            torch.testing.assert_close(found, model(INPUTS), rtol=1e-12, atol=1e-12)


class Buffered(strange_modules.Nested):
    """One buffer in two places, of which a pass replaces one; or written to where a value is negative; or by `out`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("count", torch.ones(()))
        self.body.register_buffer("count", self.count)

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x) * (self.count + 0)
        if self.how == "two places":
            self.count = self.count + 1
        elif self.how == "out":
            torch.add(self.count, torch.ones_like(self.count), out=self.count)
        elif bool((x < 0).any()):
            self.count += 1
        return z


@pytest.mark.parametrize("how", ["two places", "values", "out"])
def test_property_a_buffer_starts_each_pass_as_the_caller_has_it(how: str) -> None:
    network, expected = Network(strange.built(Buffered, how)), strange.built(Buffered, how)(INPUTS)
    inspect_network(network, INPUTS.abs() if how == "values" else INPUTS)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(network(INPUTS), expected.detach(), rtol=1e-12, atol=1e-12)
