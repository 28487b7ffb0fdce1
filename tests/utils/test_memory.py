"""Batch sizes that are halved where memory runs out, under a simulated limit on the samples of a pass."""

import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.utils.memory import fit_batch_size, halve_batches, samples_within

DATA = fp.LabelledData(torch.rand(40, 6), torch.arange(40) % 3)
ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory."),
    "python": MemoryError,
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
}


class Limited(nn.Sequential):
    """A network whose passes of more than `most` samples run out of memory, in the hidden layer."""

    def __init__(self, most: int, error: Callable[[], Exception] = ERRORS["cuda"]) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        self.most, self.error = most, error
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self[1](self[0](x))
        if len(x) > self.most:
            raise self.error()
        return self[2](hidden)


CALLS: dict[str, Callable[[nn.Module, int | None], Any]] = {
    "margins": lambda m, size: fp.functional_margins(m, DATA, batch_size=size),
    "jacobian": lambda m, size: fp.jacobian_norms(m, DATA, batch_size=size),
    "jacobian maximum": lambda m, size: fp.jacobian_maximum(m, DATA, batch_size=size),
    "geometric": lambda m, size: fp.geometric_margins(m, DATA, lower=(), upper=("ddn",), steps=3, batch_size=size),
    "adversarial": lambda m, size: fp.adversarial_accuracy(m, DATA, budgets=[0.1], steps=2, batch_size=size),
    "robustness": lambda m, size: fp.gaussian_robustness(m, DATA, gammas=[0.5], draws=2, batch_size=size),
    "smoothed": lambda m, size: fp.smoothed_certificate(m, DATA, draws=30, selection=10, batch_size=size),
}


@pytest.mark.parametrize("call", CALLS)
def test_property_a_probe_begins_anew_with_half_the_batch(call: str) -> None:
    network = Limited(most=1000)
    expected = CALLS[call](network, None)
    network.most = 12
    with pytest.warns(UserWarning, match=r"ran out of memory at batch_size=40 .*give batch_size=10"):
        found = CALLS[call](network, 40)
    assert found.settings["subject"]["batch_size"] == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = CALLS[call](network, 10)
    ours, large = (result.to_frame().select_dtypes("number") for result in (found, expected))
    assert ours.equals(again.to_frame().select_dtypes("number"))
    assert torch.allclose(torch.tensor(ours.values), torch.tensor(large.values), atol=1e-5)  # rounding of float32


RISKS: dict[str, Callable[[fp.EmpiricalRisk], Any]] = {
    "value": lambda risk: torch.tensor(list(vars(risk()).values())),
    "gradient": lambda risk: torch.cat([value.flatten() for value in risk.gradient().values()]),
    "product": lambda risk: torch.cat([value.flatten() for value in risk.hvp(None, risk.center).values()]),
    "along": lambda risk: torch.tensor(risk.along([risk.center, risk.center])((1.0, 0.5)).loss),
    "radius": lambda risk: fp.flatness_radius(risk, directions=2, max_radius=10.0).radii,
    "trace": lambda risk: torch.tensor(fp.hessian_trace(risk, draws=2).trace),
}


@pytest.mark.parametrize(
    ("call", "error"), [*((call, "cuda") for call in RISKS), ("value", "python"), ("value", "cpu")]
)
def test_property_a_risk_halves_its_batch_and_goes_on(call: str, error: str) -> None:
    network = Limited(1000, ERRORS[error])
    expected = RISKS[call](fp.EmpiricalRisk(network, DATA))
    network.most = 40
    risk = fp.EmpiricalRisk(network, DATA, batch_size=64)  # passes all 40 samples
    risk.network.slots.module.most = 12  # the copy that the risk runs
    with pytest.warns(UserWarning, match="ran out of memory at batch_size="):
        found = RISKS[call](risk)
    assert risk.batch_size == risk.describe()["batch_size"] == 8
    assert torch.allclose(found, expected, atol=1e-5)
    RISKS[call](risk)  # silently: the size stays


def test_a_risk_is_made_within_the_limit() -> None:
    with pytest.warns(UserWarning, match="EmpiricalRisk ran out of memory at batch_size=64 .*give batch_size=8"):
        risk = fp.EmpiricalRisk(Limited(12), DATA, batch_size=64)
    assert risk.batch_size == 8


@pytest.mark.parametrize("error", ERRORS)
def test_below_one_sample_it_is_an_error_with_its_fix(error: str) -> None:
    network = Limited(0, ERRORS[error])
    with pytest.raises(type(ERRORS[error]()), match=r"functional_margins ran out of memory .* at batch_size=1: use a"):
        fp.functional_margins(network, DATA, batch_size=2)


def test_work_without_batches_names_the_fix_at_once() -> None:
    calls = []

    def work() -> None:
        calls.append(None)
        raise MemoryError

    with pytest.raises(MemoryError, match=r"work ran out of memory \(no more .*\). Give a smaller batch_size"):
        halve_batches("work", work)
    assert len(calls) == 1


def test_other_errors_are_not_tried_again() -> None:
    sizes = []

    def work() -> None:
        sizes.append(fit_batch_size(8))
        msg = "mine"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match=r"^mine$"):
        halve_batches("work", work)
    assert sizes == [8]


def test_the_failed_try_is_freed_before_the_next_one() -> None:
    left: list[weakref.ref[Tensor]] = []

    def work() -> int:
        assert all(reference() is None for reference in left)
        size = fit_batch_size(8)
        weight = torch.ones(3, requires_grad=True)
        graph = (weight * weight).exp()
        left.append(weakref.ref(graph))
        if size > 2:
            try:
                msg = "out of memory"
                raise RuntimeError(msg)
            except RuntimeError as error:
                kept = error  # noqa: F841 - a cycle of the frame, the error and its traceback
                msg = "mine"
                raise ValueError(msg) from error
        return size

    with pytest.warns(UserWarning, match="batch_size=2"):
        assert halve_batches("work", work) == 2
    assert len(left) == 3


def test_an_inner_limit_ends_with_its_work_and_other_threads_have_none() -> None:
    seen = []

    def inner() -> int:
        size = fit_batch_size(8)
        if size > 4:
            raise MemoryError
        thread = threading.Thread(target=lambda: seen.append(fit_batch_size(8)))
        thread.start()
        thread.join()
        return size

    def outer() -> tuple[int, int]:
        return halve_batches("inner", inner), fit_batch_size(8)

    with pytest.warns(UserWarning, match="inner ran out of memory"):
        assert halve_batches("outer", outer) == (4, 8)
    assert seen == [8]
    assert fit_batch_size(8) == 8


def test_closed_form_samples_within_a_bound() -> None:
    assert [samples_within(each, 100, 1000) for each in (0, 10, 11, 16, 1001)] == [100, 100, 64, 32, 1]
