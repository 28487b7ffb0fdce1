"""Noise by counter: the law of the numbers, the same ones in any batch, independence; global random states."""

import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

from flatprobe.utils import philox, rng

CPU = torch.device("cpu")
COUNT = 2**18


def test_slow_reference_box_muller_in_float64() -> None:
    drawn = rng.sample_normal(0, 2, (20,), 3, "x")
    words = philox.bits(rng._hash((3, "x")), 0, 6, CPU).numpy().view(np.int32).reshape(2, 2, 12).astype(np.float64)
    radius = np.sqrt(-2 * np.log(np.abs(words[:, 0] + 0.5) / 2**31))
    angle = math.pi * words[:, 1] / 2**31
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :20]
    np.testing.assert_allclose(drawn.numpy(), expected, rtol=0, atol=2e-6)


def test_monte_carlo_the_numbers_are_standard_normal() -> None:
    for drawn in (rng.normal((COUNT,), 0, "a"), rng.sample_normal(5, 5 + COUNT // 8, (7,), 1, "b")):
        z = drawn.double().flatten().numpy()
        for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs((z**power).mean() - mean) < 4 * math.sqrt(variance / z.size), power
        assert stats.kstest(z, "norm").pvalue > 1e-4
        assert stats.kstest(np.abs(z[np.abs(z) > 2]), stats.truncnorm(2, 10).cdf).pvalue > 1e-4  # the tail


def test_monte_carlo_neighbouring_keys_samples_draws_and_places_are_independent() -> None:
    n = 2**14
    a = rng.draws_normal(range(2), 0, n, (2,), 0, "x").double()
    others = [rng.draws_normal(range(2), 0, n, (2,), *key).double() for key in ((1, "x"), (0, "y"), ("0", "x"))]
    pairs = [(a, other) for other in others]
    pairs += [(a[:1], a[1:]), (a[:, 1:], a[:, :-1]), (a[..., 0], a[..., 1])]
    for first, second in pairs:
        for power in (1, 2):  # the squares of Box-Muller's pairs share a radius
            correlation = np.corrcoef((first**power).flatten(), (second**power).flatten())[0, 1]
            assert abs(correlation) < 4.5 / math.sqrt(first.numel())


@pytest.mark.parametrize("shape", [(), (1,), (10,), (3, 5), (1, 28, 28), (20000,)])
def test_property_any_batch_equals_the_whole(shape: tuple[int, ...]) -> None:
    whole = rng.draws_normal(range(3, 9), 0, 12, shape, 7, "noise")
    assert whole.shape == (6, 12, *shape)
    assert torch.equal(rng.draws_normal(range(4, 6), 5, 11, shape, 7, "noise"), whole[1:3, 5:11])
    samples = rng.sample_normal(0, 12, shape, 7, "noise")
    for start, stop in ((0, 1), (3, 8), (11, 12), (4, 4)):
        assert torch.equal(rng.sample_normal(start, stop, shape, 7, "noise"), samples[start:stop])
    uniform = rng.sample_uniform(0, 100, 7)
    assert torch.equal(rng.sample_uniform(30, 60, 7), uniform[30:60])
    assert rng.draws_normal(range(0), 0, 5, shape, 7).shape == (0, 5, *shape)


def test_property_a_longer_tensor_begins_with_a_shorter_one() -> None:
    """So that unused words, which come last, change no other word's part of a direction."""
    long = rng.normal((3000, 5), 7, "noise")
    for rows in (0, 1, 11, 819, 820, 2999):
        assert torch.equal(rng.normal((rows, 5), 7, "noise"), long[:rows])
    assert torch.equal(rng.rademacher((11,), 7), rng.rademacher((300,), 7)[:11])


def test_monte_carlo_signs() -> None:
    signs = rng.rademacher((COUNT - 5,), 0, "x").double()
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / COUNT**0.5
    assert abs(float((signs[1:] * signs[:-1]).mean())) < 4 / COUNT**0.5
    assert rng.rademacher((2, 3), 1).shape == (2, 3)


def test_property_a_device_draws_large_tensors_itself_and_takes_small_ones_from_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rng, "_FEW", 100)
    assert rng.normal((101,), 0, device="meta").shape == (101,)
    assert rng.rademacher((101,), 0, device="meta").device.type == "meta"
    assert rng.normal((100,), 0, device="meta").device.type == "meta"
    assert rng.sample_normal(0, 3, (5,), 0, device="meta").device.type == "meta"


def test_property_integers_of_any_batch_equal_the_whole_and_are_uniform() -> None:
    whole = rng.sample_integers(0, 2000, 6, 5, 7)
    assert torch.equal(rng.sample_integers(300, 600, 6, 5, 7), whole[300:600])
    counts = torch.bincount(whole.flatten(), minlength=5)
    assert counts.sum() == whole.numel() == 12_000
    assert (counts - 2400).abs().max() < 4 * (12_000 * 0.2 * 0.8) ** 0.5


def test_pinned_uniform_numbers_are_those_of_earlier_versions() -> None:
    """Random labels come from them."""
    pinned = torch.tensor([0.522031546, 0.430509508, 0.458111048])
    torch.testing.assert_close(rng.sample_uniform(63, 66, 0, "pinned"), pinned, rtol=1e-6, atol=0)


def test_pinned_noise() -> None:
    first, later = torch.tensor([[-0.0434374027, 2.1567907333, 1.7053914070], [1.03085458, 1.21925461, -0.59947151]])
    torch.testing.assert_close(rng.normal((3,), 0, "pinned"), first)
    torch.testing.assert_close(rng.draws_normal(range(2, 3), 5, 6, (3,), 0, "pinned")[0, 0], later)
    assert rng.rademacher((6,), 0, "pinned").tolist() == [-1, 1, 1, 1, 1, 1]


def test_global_random_states_are_kept() -> None:
    drawn = []
    for _ in range(2):
        with rng.keep_global_states():
            drawn.append((np.random.rand(), random.random(), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
