"""Philox4x64-10: the authors' vector, NumPy's bits on every device, the largest number."""

import math

import numpy as np
import pytest
import torch

from flatprobe.utils import philox

CPU = torch.device("cpu")
KEY = 0x243F6A8885A308D313198A2E03707344


def test_closed_form_known_answer_of_philox4x64_10() -> None:
    """The vector of the authors' Random123 for a counter and a key of zeros."""
    words = philox.encrypt(torch.tensor([0]), torch.tensor([0]), 0)
    assert [int(word) % 2**64 for word in words[0]] == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    ]  # fmt: skip


@pytest.mark.parametrize("key", [0, KEY, 2**128 - 1])
def test_slow_reference_other_devices_have_numpys_bits(key: int) -> None:
    for first, high in ((0, 0), (2**40, 3), (2**63 - 30, 2**33)):
        low = torch.arange(first + 1, first + 21)
        words = philox.encrypt(low, torch.full_like(low, high), key)
        reference = np.random.Philox(key=key, counter=high * 2**64 + first).random_raw(80)
        assert np.array_equal(words.numpy().view(np.uint64).ravel(), reference)
    assert torch.equal(philox.bits(key, 7, 5, CPU).flatten(), torch.from_numpy(
        np.random.Philox(key=key, counter=7).random_raw(20).view(np.int64)
    ))  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1, 2, 4), (3, 7, 2, 12), (2, 3, 2, 2**13), (40, 2, 2, 60)])
def test_property_other_devices_have_the_same_numbers_up_to_a_few_rounding_units(
    shape: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(philox, "_PIECE", 1000)  # so that there are several pieces
    ours, theirs = (draw(shape, 5, 300, KEY, CPU) for draw in (philox._on_cpu, philox._on_device))
    torch.testing.assert_close(ours, theirs, rtol=8 * torch.finfo(torch.float32).eps, atol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 256 * 128 + 30, 256 * 70 - 3])
def test_slow_reference_leading_numbers_are_those_of_whole_tiles(size: int) -> None:
    whole = philox.normal((1, -(-size // 256), 2, 128), 0, 0, KEY, CPU)
    assert torch.equal(philox.leading(size, 128, KEY), whole.view(-1)[:size])


def test_property_a_draw_does_not_depend_on_those_before() -> None:
    expected = np.random.Philox(key=KEY, counter=5 * 2**64 + 3).random_raw(6)
    for before in (1, 3, 4):
        philox._generator(KEY + before, 8, 2).random_raw(before)
        assert np.array_equal(philox._generator(KEY, 3, 5).random_raw(6), expected)


def test_closed_form_the_largest_number_is_finite() -> None:
    smallest = np.array([0, -1], dtype=np.int32).astype(np.float32)
    u = np.square((smallest + philox._HALF) * philox._UNIT)
    assert np.sqrt(-np.log(u)).tolist() == pytest.approx([math.sqrt(64 * math.log(2))] * 2, rel=1e-6)
    largest = np.array([-(2**31), 2**31 - 1], dtype=np.int32).astype(np.float32)
    assert (np.log(np.square((largest + philox._HALF) * philox._UNIT)) <= 0).all()
