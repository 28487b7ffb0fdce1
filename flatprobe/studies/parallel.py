"""Measurements of a comparison in several processes."""

import pickle
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from flatprobe.studies.executors import stop_processes

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)

_HELD: list[Any] = []  # the work of this process, which is sent once


@runtime_checkable
class Measuring(Protocol[P_contra]):
    """Work that is measured place by place."""

    def measure(self, place: P_contra, /) -> Any:
        """The outcome of a place."""


def run_parallel(work: Measuring[P], places: Sequence[P], workers: int, threads: int | None) -> Iterator[tuple[P, Any]]:
    """The places and their outcomes, as they end.

    A process that dies, as for want of memory, takes no other measurement with it: those that were not done then run
    one at a time, and the outcome of one that ends its process again is the error.

    Raises:
        ValueError: if the work cannot be sent to another process.
    """
    try:
        sent = pickle.dumps(work)
    except Exception as error:
        msg = (
            f"workers must be 1 for networks or data that cannot be pickled, got {workers} ({error}). Define the "
            "network's class and functions at the top of a module"
        )
        raise ValueError(msg) from error
    each = threads if threads is not None else max(1, torch.get_num_threads() // workers)
    left = list(places)
    for outcome in _together(sent, left, workers, each):
        left.remove(outcome[0])
        yield outcome
    for place in left:  # a process died
        yield from _together(sent, [place], 1, each, last=True)


def _together(
    sent: bytes, places: Sequence[P], workers: int, threads: int, *, last: bool = False
) -> Iterator[tuple[P, Any]]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(sent, threads))
    try:
        futures = {pool.submit(_measure, place): place for place in places}
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                place, error = futures.pop(future), future.exception()
                if error is None or last:
                    yield place, error or future.result()
                elif not isinstance(error, BrokenExecutor):
                    raise error
    except BrokenExecutor:  # the process died while measurements were being sent
        return
    except BaseException:
        stop_processes(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(sent: bytes, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's
    torch.set_num_threads(threads)
    _HELD[:] = [pickle.loads(sent)]  # noqa: S301 - of the process that started this one


def _measure(place: Any) -> Any:
    return _HELD[0].measure(place)
