"""Isolation of measurements from surrounding contexts of torch."""

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
    """Context without `torch.autocast`."""
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def standalone(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator that leaves `torch.autocast` and `torch.inference_mode`.

    Both act per thread. The error for exhausted memory names the batch size.
    """

    @wraps(function)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R:
        enabled = torch.is_grad_enabled()  # Leaving inference mode would change it.
        with (
            no_autocast(),
            torch.inference_mode(mode=False),
            torch.set_grad_enabled(enabled),
            name_batch_size(function.__qualname__),
        ):
            return function(*args, **kwargs)

    return measured
