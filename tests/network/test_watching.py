"""What is seen of a pass, operation by operation: what it writes to, remembers elsewhere and draws."""

import random
import weakref
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network
from flatprobe.network.watching import Observation
from tests.helpers import strange, strange_modules

DATA = strange.data(40)


class Writes(strange_modules.Nested):
    """Writes to its inputs, or to its buffer, under a condition that not every pass meets."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = super().forward(x) + self.calls
        target = self.calls if "buffer" in self.how else x
        if "numpy" in self.how:
            values = target.detach().numpy()
            values[...] = values * 0.5 + 1
        elif not torch.is_grad_enabled() if "no_grad" in self.how else len(x) > 16:
            target.mul_(0.5).add_(1)
        return z


@pytest.mark.parametrize("target", ["inputs", "buffer"])
@pytest.mark.parametrize("how", ["no_grad", "size", "numpy"])
def test_what_only_some_passes_write_to_is_copied_for_each(target: str, how: str) -> None:
    torch.manual_seed(0)
    model = Writes(f"{target} {how}").double().eval()
    data = fp.LabelledData(DATA.inputs.double().clone(), DATA.labels)
    before, buffers = data.inputs.clone(), model.calls.clone()
    network = Network(model)
    expected = inspect_network(network, network.prepare(data.inputs)).clone()
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(network(network.prepare(data.inputs)), expected)
    assert torch.equal(data.inputs, before)
    assert torch.equal(model.calls, buffers)
    assert torch.equal(network.buffers["calls"], buffers)


class Extreme(strange_modules.Nested):
    """Its logits depend on the batch through one sample alone: the one with the largest input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x.amax()


@pytest.mark.parametrize("place", [0, 1, 7, 19, 20, 32, 38, 39])
@pytest.mark.parametrize("size", [40, 16, 5])
def test_dependence_on_one_extreme_sample_is_seen_wherever_it_lies(place: int, size: int) -> None:
    inputs = DATA.inputs[:size].clone()
    inputs[place % size, 0] = 50
    with pytest.raises(ValueError, match="depend on that sample alone"):
        fp.functional_margins(Extreme().eval(), fp.LabelledData(inputs, DATA.labels[:size]))


class Strided(nn.Module):
    """A forward that reads memory in its order, with the convolution for which the layout is given up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.second(self.first(x).relu())
        return self.head(z.as_strided((len(z), 16), (16, 1)))


def test_a_forward_that_depends_on_the_layout_is_measured_in_the_usual_one() -> None:
    torch.manual_seed(0)
    model, images = Strided().eval(), torch.rand(20, 1, 5, 5)
    expected = model(images).detach()
    network = Network(model)
    torch.testing.assert_close(inspect_network(network, images), expected, rtol=1e-6, atol=1e-6)
    assert not network.channels_last


CACHE: dict[Any, Any] = {}


class Remembers(strange_modules.Nested):
    """Keeps the norm of its weights in a place that no copy of the network has for itself."""

    of_class: ClassVar[dict[Any, Any]] = {}
    weakly: ClassVar[Any] = weakref.WeakKeyDictionary()

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        if where == "wrapped function":
            self.norm = cache(lambda: self.head.weight.norm())

    @cache  # noqa: B019 - what is tested
    def cached(self) -> Tensor:
        return self.head.weight.norm()

    def forward(self, x: Tensor) -> Tensor:
        places = {"program": CACHE, "class": self.of_class, "weakly": self.weakly}
        if self.where in places:
            norm = places[self.where].setdefault(self, self.head.weight.norm())
        else:
            norm = self.cached() if self.where == "method" else self.norm()
        return super().forward(x) / norm


FOUND = {"wrapped function": "reads .*past the layer that holds it"}  # of the caller's own network


@pytest.mark.parametrize("where", ["program", "class", "weakly", "method", "wrapped function"])
def test_what_is_remembered_outside_of_the_network_is_refused_where_weights_move(where: str) -> None:
    model = Remembers(where).eval()
    with pytest.raises(
        ValueError, match=FOUND.get(where, r"uses a tensor of shape \(\) that an earlier pass .*lru_cache")
    ):
        fp.EmpiricalRisk(model, DATA)
    assert fp.functional_margins(model, DATA).values.isfinite().all()  # at its own weights it is a function


@cache
def rotation(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.get_default_dtype()).cos()


class Rotated(strange_modules.Nested):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * rotation(x.shape[1]))


def test_constants_may_be_remembered() -> None:
    torch.manual_seed(0)
    model = Rotated().eval()
    rotation.cache_clear()
    risk = fp.EmpiricalRisk(model, DATA)
    expected = nn.functional.cross_entropy(model(DATA.inputs.float()).detach(), DATA.labels)
    assert risk().loss == pytest.approx(float(expected), rel=1e-6)


class Seeds(strange_modules.Nested):
    """The same draws in every pass."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        shift = float(np.random.rand()) + random.random()  # before type checks draw from Python's generator
        return super().forward(x + torch.randn(x.shape[1]) + shift)


def test_a_forward_that_seeds_leaves_the_callers_generators_alone() -> None:
    model = Seeds().eval()
    torch.manual_seed(11)
    np.random.seed(11)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    risk = fp.EmpiricalRisk(model, DATA)
    risk()
    fp.functional_margins(model, DATA)
    fp.flatness_radius(risk, directions=1)
    fp.jacobian_norms(model, DATA)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


def test_closed_form_of_what_is_foreign_made_written_and_remaining() -> None:
    source, constant, kept = torch.ones(3), torch.ones(4), []
    with Observation([source.untyped_storage().data_ptr()]) as seen:
        kept.append(source * 2)
        kept.append(constant * 2)
        constant.mul_(1)
        (source.view(3, 1) + 1).sum()  # let go
    address = [value.untyped_storage().data_ptr() for value in (source, constant, *kept)]
    assert seen.foreign == {*address[:2]}
    assert {*address[2:]} <= seen.made
    assert seen.written == {address[1]}
    (remaining,) = seen.remaining()
    assert remaining is kept[0]
