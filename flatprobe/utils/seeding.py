"""Seeding of the global generators, which torch modules draw from."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flatprobe.utils.rng import Key, generator


@contextmanager
def seeded(*key: Key, device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators from the key, and restore them after the block.

    Args:
        *key: names the draw, as in `flatprobe.utils.rng.generator`.
        device: a CUDA device whose generator is seeded and restored beside the CPU's.

    Yields:
        Nothing.

    >>> before = torch.random.get_rng_state()
    >>> with seeded(0, "example"):
    ...     first = torch.rand(2)
    >>> with seeded(0, "example"):
    ...     second = torch.rand(2)
    >>> bool((first == second).all()), bool((before == torch.random.get_rng_state()).all())
    (True, True)
    """
    seed = generator(*key).initial_seed()
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would seed every CUDA device, also devices that are not restored here.
        torch.default_generator.manual_seed(seed)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield
