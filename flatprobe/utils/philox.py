"""Philox4x64-10: random bits and normal numbers by counter, on any device."""

import math
import threading
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

# A counter gives four 64-bit words: eight 32-bit numbers.
NUMBERS = 8

# Salmon et al. (2011), Table 2: the multipliers, and the key's increments per round.
_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_INCREMENTS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_ROUNDS = 10

_LOW = 2**32 - 1
_WORD = 2**64
# The numbers that are computed at once: on the CPU as many as stay in a core's cache, elsewhere for little memory.
_PIECE_CPU, _PIECE = 2**14, 2**22
# Whole vectors of any processor: NumPy may compute the last numbers of another length by other instructions.
_VECTOR = 64
# Signed 32-bit integers k give u = (k + 1/2) / 2^31, never 0, and v = pi k / 2^31.
_HALF, _UNIT, _PI = np.float32(0.5), np.float32(2.0**-31), np.float32(math.pi * 2.0**-31)


def bits(key: int, first: int, count: int, device: torch.device) -> Int64[Tensor, "counters 4"]:
    """The words at the counters first, ..., first + count - 1.

    Args:
        key: an integer of 128 bits.
        first: the first counter, from 0.
        count: the number of counters.
        device: the device of the words.

    Returns:
        64-bit words as signed integers, (count, 4).
    """
    if device.type == "cpu":
        words = _generator(key, first).random_raw(4 * count)
        return torch.from_numpy(words.view(np.int64)).view(count, 4)
    low = torch.arange(first + 1, first + count + 1, device=device)
    return encrypt(low, torch.zeros_like(low), key)


def normal(
    shape: tuple[int, int, int, int], first: int, start: int, key: int, device: torch.device
) -> Float32[Tensor, "samples tiles 2 half"]:
    """Standard normal numbers by Box-Muller: sqrt(-2 log |u|) (cos v, sin v).

    A tile is (2, half): its first half becomes radii and its second half angles, so that each step runs over contiguous
    memory. Tile t of sample i takes its bits from the counters (first + i, start + t tile / 8).

    Args:
        shape: (samples, tiles, 2, half), where a tile is a multiple of 8 numbers.
        first: the number of the first sample: the second word of the counters.
        start: the first counter within each sample: the first word.
        key: an integer of 128 bits.
        device: the device of the numbers.
    """
    return (_on_cpu if device.type == "cpu" else _on_device)(shape, first, start, key, device)


class _Generators(threading.local):
    """A generator per thread: a new one gathers entropy first, which takes longer than a small draw."""

    def __init__(self) -> None:
        self.own = np.random.Philox(key=0)


_GENERATORS = _Generators()


def _generator(key: int, low: int = 0, high: int = 0) -> np.random.Philox:
    """The generator of this thread, at the counter (low, high, 0, 0) of a key, until the next call."""
    words = np.array([low, high, 0, 0, key % _WORD, key // _WORD], dtype=np.uint64)
    state: Any = {"counter": words[:4], "key": words[4:]}
    _GENERATORS.own.state = {
        "bit_generator": "Philox", "state": state, "buffer": words[:4], "buffer_pos": 4, "has_uint32": 0, "uinteger": 0,
    }  # fmt: skip
    return _GENERATORS.own


def _on_cpu(shape: tuple[int, int, int, int], first: int, start: int, key: int, _device: torch.device) -> Tensor:
    out = np.empty(shape, dtype=np.float32)
    samples, tiles, _, half = shape
    counters = tiles * 2 * half // NUMBERS
    generator = _generator(key, start, first)
    for sample in range(samples):
        if sample:
            generator.advance(_WORD - counters)
        _fill(out[sample], generator)
    return torch.from_numpy(out)


def _fill(out: Any, generator: np.random.Philox) -> None:
    """Fill the tiles (tiles, 2, half) with the next numbers."""
    step = max(1, _PIECE_CPU // max(1, 2 * out.shape[-1]))
    for tile in range(0, len(out), step):
        z = out[tile : tile + step]
        words = generator.random_raw(z.size // 2).view(np.int32).reshape(z.shape)
        radius, angle = _radii(words[:, 0]), words[:, 1].astype(np.float32)
        angle *= _PI
        np.multiply(np.cos(angle), radius, out=z[:, 0])
        np.multiply(np.sin(angle, out=angle), radius, out=z[:, 1])


def _radii(words: Any) -> Any:
    radius = words.astype(np.float32)
    radius += _HALF
    radius *= _UNIT
    for step in (np.square, np.log, np.negative, np.sqrt):
        step(radius, out=radius)
    return radius


def leading(size: int, half: int, key: int) -> Float32[Tensor, " size"]:
    """The first numbers of `normal` in tiles (2, half) on the CPU.

    Of a last tile, at most half of which is needed, only the cosines that are needed are computed.

    Args:
        size: the number of numbers.
        half: half of the size of a tile, a multiple of 64.
        key: an integer of 128 bits.
    """
    tiles, rest = divmod(size, 2 * half)
    if rest > half:
        tiles, rest = tiles + 1, 0
    rest = -(-rest // _VECTOR) * _VECTOR
    whole = tiles * 2 * half
    out = np.empty(whole + rest, dtype=np.float32)
    generator = _generator(key)
    _fill(out[:whole].reshape(tiles, 2, half), generator)
    if rest:
        radius = _radii(generator.random_raw(rest // 2).view(np.int32))
        generator.advance((half - rest) // NUMBERS)
        angle = generator.random_raw(rest // 2).view(np.int32).astype(np.float32)
        angle *= _PI
        np.multiply(np.cos(angle, out=angle), radius, out=out[whole:])
    return torch.from_numpy(out)[:size]


def _on_device(shape: tuple[int, int, int, int], first: int, start: int, key: int, device: torch.device) -> Tensor:
    out = torch.empty(shape, dtype=torch.float32, device=device)
    samples, tiles, _, half = shape
    owners = torch.arange(first, first + samples, device=device)[:, None]
    step = max(1, _PIECE // max(1, samples * 2 * half))
    for tile in range(0, tiles, step):
        z = out[:, tile : tile + step]
        begin = start + 1 + tile * 2 * half // NUMBERS
        low = torch.arange(begin, begin + z.shape[1] * 2 * half // NUMBERS, device=device).expand(samples, -1)
        words = encrypt(low, owners.expand_as(low), key).view(torch.int32).view(z.shape)
        radius = words[:, :, 0].float().add_(float(_HALF)).mul_(float(_UNIT)).square_().log_().neg_().sqrt_()
        angle = words[:, :, 1].float().mul_(float(_PI))
        torch.mul(angle.cos(), radius, out=z[:, :, 0])
        torch.mul(angle.sin_(), radius, out=z[:, :, 1])
    return out


def encrypt(low: Int64[Tensor, "*shape"], high: Int64[Tensor, "*shape"], key: int) -> Int64[Tensor, "*shape 4"]:
    """The four words of Philox4x64-10 at the counters (low, high, 0, 0).

    NumPy's generator increments its counter before use: its first words are those of its counter plus 1.
    """
    even, odd = (torch.stack([word, torch.zeros_like(word)]) for word in (low, high))  # words 0 and 2, words 1 and 3
    factors = [_rows(even, *parts) for parts in zip(*map(_parts, _MULTIPLIERS), strict=True)]
    keys = [key % _WORD, key // _WORD]
    for _ in range(_ROUNDS):
        upper, lower = _product(even, *factors)
        even, odd = upper.flip(0) ^ odd, lower.flip(0)
        for row, word in zip(even, keys, strict=True):
            row ^= _signed(word)
        keys = [(word + increment) % _WORD for word, increment in zip(keys, _INCREMENTS, strict=True)]
    return torch.stack([even[0], odd[0], even[1], odd[1]], -1)


def _product(x: Tensor, f: Tensor, f_low: Tensor, f_high: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and the lower word of the product of 64-bit words, by 32-bit halves."""
    x_low, x_high = x & _LOW, (x >> 32) & _LOW  # the shift of a signed word repeats its sign
    middle = x_high * f_low + (((x_low * f_low) >> 32) & _LOW)  # below 2^64
    other = x_low * f_high + (middle & _LOW)
    return x_high * f_high + ((middle >> 32) & _LOW) + ((other >> 32) & _LOW), x * f


def _parts(factor: int) -> tuple[int, int, int]:
    return _signed(factor), factor & _LOW, factor >> 32


def _rows(like: Tensor, *values: int) -> Tensor:
    """One number per row, which reaches the device without a synchronisation."""
    rows = like.new_empty((len(values),) + (1,) * (like.ndim - 1))
    for row, value in zip(rows, values, strict=True):
        row.fill_(value)
    return rows


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word
