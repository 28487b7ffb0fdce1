"""Langevin chains: closed forms on a quadratic, a slow reference, seeds and blocks (properties), pinned positions."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import flatprobe as fp
from flatprobe.training import chains
from flatprobe.training.diverged import DivergedError
from flatprobe.utils.rng import draws_normal, sample_integers


def quadratic(curvature: float) -> Callable[[Tensor], Tensor]:
    return lambda w: curvature / 2 * (w**2).sum(1)


def wells(w: Tensor) -> Tensor:
    return ((w**2 - 1) ** 2).sum(1) + w[:, 0] * 0.3


def offsets(w: Tensor, numbers: Tensor) -> Tensor:
    """Mean over the minibatch of (w - a_i)^2 / 2, with the a_i 0 to 4."""
    return ((w[:, None] - numbers[..., None].to(w)) ** 2 / 2).sum(-1).mean(1)


def starts(count: int, dimensions: int) -> Tensor:
    return torch.linspace(-1, 1, count * dimensions, dtype=torch.float64).view(count, dimensions)


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.5])
def test_closed_form_the_variance_on_a_quadratic_is_that_of_the_discrete_chain(rate: float) -> None:
    curvature, temperature = 2 / 3, 0.7
    found = fp.langevin_chains(
        quadratic(curvature), torch.zeros(4000, 8), rate=rate, temperature=temperature, steps=300, burn_in=299
    )
    values = found.positions[0].double()
    expected = temperature / (curvature * (1 - rate * curvature / 2))
    assert abs(float(values.mean())) < 4 * (expected / values.numel()) ** 0.5
    assert float(values.var()) == pytest.approx(expected, abs=4 * expected * (2 / values.numel()) ** 0.5)


def test_closed_form_minibatches_of_a_finite_sum_add_their_variance() -> None:
    rate, temperature, size = 0.5, 0.2, 3
    found = fp.langevin_chains(
        offsets, torch.full((4000, 8), 2.0), rate=rate, temperature=temperature, steps=60, burn_in=59, terms=5,
        batch_size=size,
    )  # fmt: skip
    per_step = 2 * rate * temperature * torch.eye(8) + rate**2 * 2 / size  # variance 2 of 0 to 4, shared by the axes
    expected = per_step / (1 - (1 - rate) ** 2)
    values = found.positions[0].double()
    error = 4 * (2 / len(values)) ** 0.5 * float(expected[0, 0])
    assert float(values.mean()) == pytest.approx(2, abs=4 * (float(expected.mean()) / len(values)) ** 0.5)
    torch.testing.assert_close(torch.cov(values.T), expected.double(), rtol=0, atol=error)


def test_slow_reference_each_chain_by_itself() -> None:
    found = fp.langevin_chains(wells, starts(5, 3), rate=0.02, temperature=0.4, steps=7, burn_in=2, thinning=2, seed=3)
    noise = draws_normal(range(5), 0, 7, (3,), 3, "langevin chains").double()
    for chain, start in enumerate(starts(5, 3)):
        w, kept = start.clone(), []
        for t in range(7):
            gradient = 4 * w * (w**2 - 1) + torch.tensor([0.3, 0, 0], dtype=torch.float64)
            w = w - 0.02 * gradient + math.sqrt(2 * 0.02 * 0.4) * noise[chain, t]
            if t in {3, 5}:
                kept.append(w)
        torch.testing.assert_close(found.positions[:, chain], torch.stack(kept), rtol=1e-12, atol=1e-12)


def test_slow_reference_sgd_is_temperature_0() -> None:
    found = fp.langevin_chains(offsets, starts(4, 2), rate=0.3, temperature=0, steps=3, terms=9, batch_size=2, seed=1)
    w = starts(4, 2)
    for t in range(3):
        drawn = sample_integers(0, 4, 2, 9, 1, "langevin minibatch", t).double()
        w = w - 0.3 * (w - drawn.mean(1, keepdim=True))
        torch.testing.assert_close(found.positions[t], w, rtol=1e-12, atol=1e-12)


def test_property_a_seed_determines_chains_whatever_their_number_and_that_of_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(count: int, steps: int, seed: int = 0) -> Tensor:
        return fp.langevin_chains(
            lambda w, numbers: wells(w) + offsets(w, numbers), starts(6, 2)[:count], rate=0.02, temperature=1,
            steps=steps, terms=7, batch_size=5, seed=seed,
        ).positions  # fmt: skip

    whole = run(6, 20)
    assert torch.equal(whole, run(6, 20))
    assert not torch.equal(whole, run(6, 20, seed=1))
    assert torch.equal(whole[:, :4], run(4, 20))
    assert torch.equal(whole[:9], run(6, 9))
    monkeypatch.setattr(chains, "_BLOCK", 36)  # 3 steps
    assert torch.equal(whole, run(6, 20))


def test_property_the_global_generator_and_the_start_are_untouched() -> None:
    start, before = starts(3, 2), torch.random.get_rng_state()
    with torch.no_grad():  # the gradient is computed all the same
        fp.langevin_chains(wells, start, rate=0.02, temperature=1, steps=2)
    assert torch.equal(start, starts(3, 2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_pinned_positions() -> None:
    found = fp.langevin_chains(wells, starts(2, 1), rate=0.02, temperature=0.5, steps=3, burn_in=2, seed=5)
    pinned = torch.tensor([-0.9349002199435184, 0.6466898811493849], dtype=torch.float64)
    torch.testing.assert_close(found.positions.flatten(), pinned, rtol=1e-5, atol=0)


def test_a_record_returns_the_chains(tmp_path: Path) -> None:
    found = fp.langevin_chains(wells, starts(3, 2), rate=0.02, temperature=1, steps=4, thinning=2)
    assert found.to_frame().columns.tolist() == ["draw", "chain", "w1", "w2"]
    assert found.settings["arguments"]["thinning"] == 2
    loaded = fp.load(fp.save(found, tmp_path / "chains.parquet"))
    assert loaded.settings == found.settings
    assert torch.equal(loaded.positions, found.positions)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"rate": 0.0}, "rate must be a positive finite number, got 0.0"),
        ({"rate": None}, "rate must be a number, got None"),
        ({"temperature": -1.0}, r"temperature must be a positive finite number, got -1\.0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"burn_in": 3, "thinning": 3}, r"steps must be at least burn_in \+ thinning, 6, got 5\. Take more"),
        ({"batch_size": 3}, "terms and batch_size must be given together, got None and 3"),
        ({"potential": lambda w: w**2}, r"must return one value per chain, \(3,\), got \(3, 2\)"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, object], match: str) -> None:
    arguments = {"potential": wells, "rate": 0.02, "temperature": 1.0, "steps": 5} | changed
    with pytest.raises(ValueError, match=match):
        fp.langevin_chains(arguments.pop("potential"), starts(3, 2), **arguments)


def test_a_diverging_chain_is_an_error() -> None:
    with pytest.raises(DivergedError, match=r"positions must be finite, got infinity or NaN .* Lower the rate, 2\.5"):
        fp.langevin_chains(quadratic(1), torch.ones(2, 1), rate=2.5, temperature=0, steps=300)
