"""Blocks of the Hessian: graphs that products share give the same bits, within a bound, and are freed."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

import flatprobe as fp
from flatprobe.network.weights import Weights
from flatprobe.risk import empirical
from flatprobe.risk.hessian import HessianBlock, _Made
from flatprobe.risk.protocols import Hessian
from flatprobe.utils import rng
from tests.helpers import cases

BATCHES = torch.randn(5, 50, 8)
POINT = {"a": torch.randn(8), "b": torch.randn(50)}
DIRECTIONS = [{name: torch.randn_like(value) for name, value in POINT.items()} for _ in range(2)]


class Counted:
    """Losses per batch that count their passes and remember their intermediate values."""

    def __init__(self) -> None:
        self.failing = -1
        self.passes, self.values = [0] * len(BATCHES), [None] * len(BATCHES)

    def __call__(self) -> Iterator[Callable[[Weights], Tensor]]:
        for number in range(len(BATCHES)):
            yield lambda weights, number=number: self.loss(number, weights)

    def loss(self, number: int, weights: Weights) -> Tensor:
        if number == self.failing:
            self.failing = -1
            message = "out of memory, said for the test"
            raise RuntimeError(message)
        self.passes[number] += 1
        products = (BATCHES[number] * weights["a"]).tanh()
        self.values[number] = StorageWeakRef(products.untyped_storage())
        return (products.sum(1) * weights["b"]).square().sum()

    @property
    def held(self) -> list[bool]:
        return [not value.expired() for value in self.values]


def size_of_a_graph() -> int:
    losses = Counted()
    with _Made() as made:
        variables = {name: value.clone().requires_grad_() for name, value in POINT.items()}
        kept = torch.autograd.grad(losses.loss(0, variables), list(variables.values()), create_graph=True)
    assert len(kept) == 2
    return made.held()


@pytest.mark.parametrize(
    ("graphs", "again"), [(0.0, [3, 3, 3, 3, 3]), (2.5, [1, 1, 3, 3, 3]), (5.5, [1] * 5), (math.inf, [1] * 5)]
)
def test_property_products_and_forms_have_the_same_bits_with_kept_graphs(graphs: float, again: list[int]) -> None:
    losses = Counted()
    block = HessianBlock(losses, POINT, list(POINT), 250, graphs * size_of_a_graph() if graphs else 0)
    reference = HessianBlock(Counted(), POINT, list(POINT), 250, 0)
    for directions in (DIRECTIONS, DIRECTIONS[:1]):
        for own, other in zip(block.products(directions, POINT), reference.products(directions, POINT), strict=True):
            assert all(torch.equal(own[name], other[name]) for name in POINT)
    assert block.forms(DIRECTIONS) == reference.forms(DIRECTIONS)
    assert losses.passes == again
    assert losses.held == [passes == 1 for passes in again]
    block.free()
    assert not any(losses.held)
    assert block.forms(DIRECTIONS[:1]) == reference.forms(DIRECTIONS[:1])
    assert not any(losses.held)  # A freed block keeps no graph.


def test_closed_form_the_bytes_that_a_context_makes() -> None:
    before = torch.zeros(1000)
    with _Made() as made:
        view, kept, parts = before.view(10, 100), before + 1, [before * 2, before * 3]
        kept.add_(1)
        del parts[0]
    assert view.shape == (10, 100)
    assert made.held() == 2 * 4000
    del parts
    assert made.held() == 4000


def test_graphs_are_freed_after_an_error() -> None:
    risk = fp.EmpiricalRisk(cases.smooth(), cases.data_for((4, 4), samples=40, classes=4), batch_size=16)
    signs = [{name: torch.ones_like(value) for name, value in risk.center.items()}]
    during = []

    def fail() -> None:
        with Hessian(risk, list(risk.center)) as hessian:
            first = hessian.forms(signs)
            during.append(made.held())
            assert hessian.forms(signs) == first
            raise ZeroDivisionError

    with _Made() as made:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert made.held() < during[0] / 3  # What the check of the derivatives keeps remains.


def test_products_are_whole_after_memory_ran_out() -> None:
    losses = Counted()
    block = HessianBlock(losses, POINT, list(POINT), 250, 2.5 * size_of_a_graph())
    expected = block.forms(DIRECTIONS)
    losses.failing = 3
    with pytest.raises(RuntimeError, match="out of memory"):
        block.forms(DIRECTIONS)
    assert not any(losses.held)  # Other batches may be smaller, so that the kept ones are not theirs.
    assert block.forms(DIRECTIONS) == expected
    assert losses.passes == [2, 2, 3, 2, 2]


class Remembering(nn.Module):
    """A layer that is computed again in the backward pass, from what the pass has stored in the module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.scale: Any = None

    def _hidden(self, x: Tensor) -> Tensor:
        return (self.first(x) * self.scale).tanh()

    def forward(self, x: Tensor) -> Tensor:
        self.scale = x.square().sum(1, keepdim=True)
        return self.last(checkpoint(self._hidden, x, use_reentrant=False))


class Plain(Remembering):
    def forward(self, x: Tensor) -> Tensor:
        self.scale = x.square().sum(1, keepdim=True)
        return self.last(self._hidden(x))


def test_slow_reference_graphs_that_depend_on_later_passes_are_not_kept() -> None:
    model = Remembering().double().eval()
    plain = Plain().double().eval()
    plain.load_state_dict(model.state_dict())
    inputs = torch.randn(24, 6, generator=rng.generator("hessian"), dtype=torch.float64)
    data = fp.LabelledData(inputs, torch.arange(24) % 3)
    risk, reference = fp.EmpiricalRisk(model, data, batch_size=8), fp.EmpiricalRisk(plain, data, batch_size=24)
    own = fp.hessian_trace(risk, draws=25)
    torch.testing.assert_close(own.forms, fp.hessian_trace(reference, draws=25).forms, rtol=1e-9, atol=1e-9)
    assert risk.network.slots.leaves_traces


@pytest.mark.parametrize("kept", [0, 2**30])
def test_property_the_probes_do_not_depend_on_the_bound(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = cases.NETWORKS["cnn"](), cases.data_for((1, 8, 8), samples=70)
    risk = fp.EmpiricalRisk(model, data, batch_size=32)
    expected = fp.hessian_trace(risk, draws=11), fp.hessian_eigenvalues(risk, parameters="last", tolerance=1e-2)
    monkeypatch.setattr(empirical, "KEPT", kept)
    assert torch.equal(fp.hessian_trace(risk, draws=11).forms, expected[0].forms)
    values = fp.hessian_eigenvalues(risk, parameters="last", tolerance=1e-2)
    assert torch.equal(values.eigenvalues, expected[1].eigenvalues)
    assert torch.equal(values.residuals, expected[1].residuals)
