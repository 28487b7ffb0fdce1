"""Isolation of measurements from surrounding contexts of torch."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from flatprobe.network.batch_sizes import BATCH_SIZES
from flatprobe.network.modules import architecture_of
from flatprobe.utils.memory import halve_batches
from flatprobe.utils.precision import full_precision
from flatprobe.utils.threads import one_thread, thread_rule

P = ParamSpec("P")
R = TypeVar("R")

_DEVICES = ("cpu", "cuda")


def no_autocast() -> AbstractContextManager[None]:
    """Context without `torch.autocast`."""
    enabled = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
    return _without_autocast(enabled) if enabled else nullcontext()


@contextmanager
def _without_autocast(devices: Iterable[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def _without_inference_mode() -> Iterator[None]:
    enabled = torch.is_grad_enabled()  # Leaving inference mode would change it.
    with torch.inference_mode(mode=False), torch.set_grad_enabled(enabled):
        yield


def _no_inference_mode() -> AbstractContextManager[None]:
    return _without_inference_mode() if torch.is_inference_mode_enabled() else nullcontext()


def standalone(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator that leaves `torch.autocast` and `torch.inference_mode`, and follows the thread rule.

    Autocast and inference mode act per thread. Products of float32 numbers keep all digits: TF32 and bfloat16 are used
    only if the user sets `torch.backends.fp32_precision`. A small dense network, given as the first argument or by its
    risk, is measured by one thread. Where memory runs out, the function begins anew with half the batch size.
    """

    @wraps(function)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R:
        with (
            no_autocast(),
            full_precision(),
            _no_inference_mode(),
            threads_for(args[0] if args else None, kwargs.get("batch_size")),
        ):
            return halve_batches(function.__qualname__.removesuffix(".__init__"), partial(function, *args, **kwargs))

    return measured


def threads_for(subject: object, batch_size: object) -> AbstractContextManager[None]:
    """Context of one thread for a small dense network on a CPU, or for a risk of it.

    Args:
        subject: the network or the risk; for anything else, the number of threads stays.
        batch_size: samples per pass of a network; unless an integer, the table's for dense networks.
    """
    network = getattr(subject, "network", None)
    if isinstance(subject, nn.Module):
        architecture, parameters = architecture_of(subject), [*subject.parameters()]
    elif isinstance(found := getattr(network, "weights", None), dict):
        architecture, parameters = getattr(network, "architecture", ""), [*found.values()]
        batch_size = getattr(subject, "batch_size", None)
    else:
        return nullcontext()
    if any(value.device.type != "cpu" or is_lazy(value) for value in parameters):
        return nullcontext()
    size = batch_size if isinstance(batch_size, int) else BATCH_SIZES["dense", "cpu"]
    threads = thread_rule(sum(value.numel() for value in parameters), size, architecture)
    return one_thread() if threads == 1 else nullcontext()
