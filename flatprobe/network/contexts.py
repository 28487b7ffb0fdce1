"""The contexts that a caller may be in, kept out of what is measured."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from flatprobe.utils.memory import name_batch_size

P = ParamSpec("P")
R = TypeVar("R")

_DEVICES = ("cpu", "cuda")


@contextmanager
def no_autocast() -> Iterator[None]:
    """Whatever runs in the block runs in the precision of its tensors, inside of `torch.autocast` too."""
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def standalone(function: Callable[P, R]) -> Callable[P, R]:
    """The function outside of the caller's `torch.autocast` and `torch.inference_mode`, which are of the thread.

    Where memory runs out, its error names the batch size.
    """

    @wraps(function)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R:
        enabled = torch.is_grad_enabled()  # which leaving inference mode would change
        with (
            no_autocast(),
            torch.inference_mode(mode=False),
            torch.set_grad_enabled(enabled),
            name_batch_size(function.__qualname__),
        ):
            return function(*args, **kwargs)

    return measured
