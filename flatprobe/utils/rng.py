"""Indexed randomness: every draw is a function of an explicit key.

Noise is counter-based. A key selects a Philox4x64-10 generator (Salmon et al. 2011) and the place of a number selects a
counter, so that any part of a draw is computed alone, with the same numbers in any batch and on any device. Random
labels, orders and the noise of training come from torch's CPU generator.
"""

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from flatprobe.utils import philox

Key = int | str
Device = torch.device | str

# The law of the noise, as records name it. Records without the entry hold noise of torch's mt19937 generator.
NOISE = "philox4x64"

# Box-Muller's tiles: as large as a sample up to this many numbers, which stay in a core's cache, and of constant size
# for a whole tensor.
_TILE, _WHOLE = 2**14, 2**12
# Uniform numbers are drawn in blocks of this size, whole and then cut: torch gives other numbers for other lengths.
_BLOCK = 64
# Another device starts some 300 kernels per tensor. The CPU draws this many numbers in less time.
_FEW = 2**17


def generator(*key: Key) -> torch.Generator:
    """A CPU generator whose stream depends on the key alone.

    The key is hashed, so that neighbouring seeds and indices give unrelated streams.

    Args:
        *key: integers and words that name the draw, such as `(seed, "direction", 3)`.

    Returns:
        A `torch.Generator` on the CPU.

    >>> bool(torch.equal(torch.rand(3, generator=generator(0, "x")), torch.rand(3, generator=generator(0, "x"))))
    True
    >>> bool(torch.equal(torch.rand(3, generator=generator(0, "x")), torch.rand(3, generator=generator(0, "y"))))
    False
    """
    return torch.Generator().manual_seed(int.from_bytes(_digest(key)[:8], "little", signed=True))


def normal(shape: Sequence[int], *key: Key, device: Device = "cpu") -> Float32[Tensor, "..."]:
    """Standard normal float32 tensor, a function of the key and the shape; a longer one begins with a shorter one."""
    size, drawn_on = math.prod(shape), _best(shape, device)
    if drawn_on.type == "cpu":
        return philox.leading(size, _WHOLE // 2, _hash(key)).view(tuple(shape)).to(device)
    noise = philox.normal((1, -(-size // _WHOLE), 2, _WHOLE // 2), 0, 0, _hash(key), drawn_on)
    return noise.view(-1)[:size].view(tuple(shape)).to(device)


def rademacher(shape: Sequence[int], *key: Key, device: Device = "cpu") -> Float32[Tensor, "..."]:
    """A float32 Rademacher vector (entries +1 or -1), a function of key and shape: the sign bits of random bytes."""
    count = math.prod(shape)
    words = philox.bits(_hash(key), 0, -(-count // 32), _best(shape, device))
    return words.view(torch.int8).view(-1)[:count].ge(0).float().mul_(2).sub_(1).view(tuple(shape)).to(device)


def sample_normal(
    start: int, stop: int, shape: Sequence[int], *key: Key, device: Device = "cpu"
) -> Float32[Tensor, "samples ..."]:
    """Standard normal noise per sample; that of sample i depends on (key, i) alone.

    Args:
        start: position of the first sample in its data set.
        stop: one past the position of the last.
        shape: shape of one sample.
        *key: names the draw.
        device: the device of the noise.

    Returns:
        Float32 tensor (stop - start, *shape).

    >>> whole = sample_normal(0, 150, (3,), 7, "noise")
    >>> bool(torch.equal(whole[60:140], sample_normal(60, 140, (3,), 7, "noise")))
    True
    """
    return draws_normal(range(1), start, stop, shape, *key, device=device)[0]


def draws_normal(
    samples: range, start: int, stop: int, shape: Sequence[int], *key: Key, device: Device = "cpu"
) -> Float32[Tensor, "samples draws ..."]:
    """Standard normal noise for several draws per sample; draw j of sample i depends on (key, i, j) alone.

    Box-Muller: sqrt(-2 log u) (cos v, sin v), with u and v from 31 and 32 random bits. No number is beyond
    sqrt(64 log 2) = 6.66, which a normal number exceeds with probability 3e-11. The random bits are the same on every
    device. The numbers differ by a few rounding units between devices and between processors, as their log, cos and
    sin do.

    Args:
        samples: positions of the samples.
        start: number of the first draw.
        stop: one past the number of the last.
        shape: shape of one draw.
        *key: names the family of draws.
        device: the device of the noise.

    Returns:
        Float32 tensor (len(samples), stop - start, *shape).
    """
    size, draws = math.prod(shape), stop - start
    tiles = max(1, -(-size // _TILE))
    half = -(-size // (tiles * philox.NUMBERS)) * philox.NUMBERS // 2
    first = start * tiles * 2 * half // philox.NUMBERS
    noise = philox.normal(
        (len(samples), draws * tiles, 2, half), samples.start, first, _hash(key), torch.device(device)
    )
    if 2 * half * tiles > size:  # tiles are whole counters
        noise = noise.view(len(samples), draws, 2 * half * tiles)[:, :, :size]
    return noise.reshape(len(samples), draws, *shape)


def sample_uniform(start: int, stop: int, *key: Key) -> Float32[Tensor, " samples"]:
    """A uniform CPU number in [0, 1) per sample, a function of (key, i) alone.

    Random labels come from these numbers, so that they are those of earlier versions.
    """
    blocks = range(start // _BLOCK, -(-stop // _BLOCK))
    parts = [
        torch.rand(_BLOCK, generator=generator(*key, block), dtype=torch.float32, device="cpu") for block in blocks
    ]
    first = blocks.start * _BLOCK
    return torch.cat(parts)[start - first : stop - first] if parts else torch.empty(0, device="cpu")


def sample_integers(start: int, stop: int, count: int, below: int, *key: Key) -> Int64[Tensor, "samples count"]:
    """Uniform CPU integers from 0 to below - 1, several per sample; those of sample i depend on (key, i) alone.

    They are 63 random bits modulo `below`, so that their probabilities differ by at most 2^-63.
    """
    counters = -(-count // 4)  # a counter gives four words
    words = philox.bits(_hash(key), start * counters, (stop - start) * counters, torch.device("cpu"))
    return words.bitwise_and(2**63 - 1).remainder(below).view(stop - start, 4 * counters)[:, :count]


def permutation(count: int, *key: Key) -> Int64[Tensor, " count"]:
    """A random order of 0, ..., count - 1, a function of the key and the count."""
    return torch.randperm(count, generator=generator(*key), device="cpu")


def _best(shape: Sequence[int], device: Device) -> torch.device:
    """The device that draws one tensor sooner, by its size alone."""
    return torch.device("cpu" if math.prod(shape) <= _FEW else device)


def _digest(key: tuple[Key, ...]) -> bytes:
    plain = tuple(part if isinstance(part, str) else int(part) for part in key)  # NumPy's integers too
    return hashlib.sha256(repr(plain).encode()).digest()


def _hash(key: tuple[Key, ...]) -> int:
    return int.from_bytes(_digest(key)[:16], "little")


@contextmanager
def keep_global_states() -> Iterator[None]:
    """Restore the global generators after the block."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
