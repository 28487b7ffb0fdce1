"""Indexed randomness: every draw is a function of an explicit key."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

# Noise for samples is drawn in blocks of this size: torch gives other numbers for other lengths, so a block is always
# drawn whole and then cut. 64 images of 3 x 224 x 224 are 38 MB.
BLOCK = 64

Key = int | str


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
    plain = tuple(part if isinstance(part, str) else int(part) for part in key)  # NumPy's integers too
    digest = hashlib.sha256(repr(plain).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def normal(shape: Sequence[int], *key: Key) -> Float32[Tensor, "..."]:
    """Standard normal float32 CPU tensor, a function of the key and the shape."""
    return torch.randn(tuple(shape), generator=generator(*key), dtype=torch.float32, device="cpu")


def rademacher(shape: Sequence[int], *key: Key) -> Float32[Tensor, "..."]:
    """A float32 Rademacher vector (entries +1 or -1), a function of key and shape."""
    drawn = torch.randint(2, tuple(shape), generator=generator(*key), dtype=torch.float32, device="cpu")
    return drawn.mul_(2).sub_(1)


def _blocks(start: int, stop: int) -> Iterator[tuple[int, slice]]:
    """Blocks that hold the samples [start, stop), with the rows of these samples."""
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        first = block * BLOCK
        yield block, slice(max(start - first, 0), min(stop - first, BLOCK))


def sample_normal(start: int, stop: int, shape: Sequence[int], *key: Key) -> Float32[Tensor, "samples ..."]:
    """Standard normal noise per sample; that of sample i depends on (key, i) alone.

    Args:
        start: position of the first sample in its data set.
        stop: one past the position of the last.
        shape: shape of one sample.
        *key: names the draw.

    Returns:
        Float32 CPU tensor (stop - start, *shape).

    >>> whole = sample_normal(0, 150, (3,), 7, "noise")
    >>> bool(torch.equal(whole[60:140], sample_normal(60, 140, (3,), 7, "noise")))
    True
    """
    parts = [normal((BLOCK, *shape), *key, block)[rows] for block, rows in _blocks(start, stop)]
    return torch.cat(parts) if parts else torch.empty((0, *shape), dtype=torch.float32, device="cpu")


def sample_uniform(start: int, stop: int, *key: Key) -> Float32[Tensor, " samples"]:
    """A uniform number in [0, 1) per sample, a function of (key, i) alone."""
    parts = [
        torch.rand(BLOCK, generator=generator(*key, block), dtype=torch.float32, device="cpu")[rows]
        for block, rows in _blocks(start, stop)
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float32, device="cpu")


def permutation(count: int, *key: Key) -> Int64[Tensor, " count"]:
    """A random order of 0, ..., count - 1, a function of the key and the count."""
    return torch.randperm(count, generator=generator(*key), device="cpu")


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
