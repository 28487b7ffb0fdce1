"""Isolation of measurements from surrounding contexts of torch."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import ParamSpec, TypeVar

import torch

from flatprobe.utils.memory import halve_batches

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

    Both act per thread. Where memory runs out, the function begins anew with half the batch size.
    """

    @wraps(function)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R:
        enabled = torch.is_grad_enabled()  # Leaving inference mode would change it.
        with (
            no_autocast(),
            torch.inference_mode(mode=False),
            torch.set_grad_enabled(enabled),
        ):
            return halve_batches(function.__qualname__.removesuffix(".__init__"), partial(function, *args, **kwargs))

    return measured
