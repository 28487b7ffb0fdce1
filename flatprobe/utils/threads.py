"""Number of torch's threads: the rule for training and probes, and contexts that set it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Multiply-adds of a dense network per batch below which a second thread costs more than it saves: the threads wait for
# each other longer than the products take, many times longer on a busy machine.
SMALL = 2**26


def thread_rule(parameters: int, batch_size: int, architecture: str) -> int:
    """Number of threads: one for a small dense network, else torch's.

    Args:
        parameters: number of parameters of the network.
        batch_size: samples per step or pass.
        architecture: `"dense"`, `"convolutional"` or `"tokens"`; the latter two use each parameter many times per
            sample.

    Returns:
        The number of threads.
    """
    small = architecture == "dense" and parameters * batch_size < SMALL
    return 1 if small else torch.get_num_threads()


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Set torch's number of threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_LOCK = threading.Lock()
_OWN = threading.local()
_BEFORE: list[int] = []  # The number before the first of the blocks that run, once for each of them.


@contextmanager
def one_thread() -> Iterator[None]:
    """Set torch's number of threads to 1 within the outermost block of this thread of Python.

    The number belongs to the process. Where blocks overlap, each restores the number before the first of them.
    """
    if getattr(_OWN, "inside", False):
        yield
        return
    with _LOCK:
        before = _BEFORE[0] if _BEFORE else torch.get_num_threads()
        _BEFORE.append(before)
    _OWN.inside = True
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _OWN.inside = False
        torch.set_num_threads(before)
        with _LOCK:
            _BEFORE.pop()
