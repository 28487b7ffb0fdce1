"""How many threads torch works with: a rule, and a way to hold it for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Multiply-adds of a dense network over a batch below which a second thread costs more than it brings: the threads wait
# for each other longer than the products take, many times longer on a machine that is busy with something else.
SMALL = 2**26


def thread_rule(parameters: int, batch_size: int, architecture: str) -> int:
    """Threads for training: one for a small dense network, otherwise as many as torch is set to.

    Args:
        parameters: of the network.
        batch_size: samples a step.
        architecture: `"dense"`, `"convolutional"` or `"tokens"`; the latter two use each parameter many times a sample.

    Returns:
        The number of threads.
    """
    small = architecture == "dense" and parameters * batch_size < SMALL
    return 1 if small else torch.get_num_threads()


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Torch works with this many threads in the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
