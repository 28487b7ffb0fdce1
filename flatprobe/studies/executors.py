"""Executors of a sweep: in this process, or in worker processes of this machine."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from flatprobe.utils.arguments import Checked, at_least, one_of

Maker = Callable[[], Executor]
NAMES = ("serial", "processes")


class Serial(Executor):
    """Calls at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries what the call raises
            future.set_exception(error)
        return future


def processes(workers: int) -> ProcessPoolExecutor:
    """A pool of fresh processes with one torch thread each."""
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))


def executor_maker(executor: Checked[Executor | Maker | str | None], workers: int) -> tuple[Maker, bool]:
    """A function that makes the executor, and whether a new one can replace a broken one.

    Raises:
        TypeError: for anything but a name, an executor or a function.
        ValueError: for an unknown name.
    """
    at_least(1, workers=workers)
    if executor is None or isinstance(executor, str):
        name = executor or NAMES[0]
        one_of("executor", name, NAMES)
        return (Serial if name == "serial" else lambda: processes(workers)), True
    if isinstance(executor, Executor):
        return lambda: executor, False
    if callable(executor):
        return executor, True
    msg = f"executor must be a name, a concurrent.futures.Executor or a function that makes one, got {executor!r}"
    raise TypeError(msg)
