"""Executors of a sweep: in this process, worker processes, a Dask cluster, or Slurm jobs."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from flatprobe.utils.arguments import Checked, at_least, one_of

Maker = Callable[[], Executor]
_POLL = 1.0  # seconds between two looks at the files of Slurm jobs
_STARTS = 3  # of a Slurm job that dies without a result, for example by preemption


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


class Dask(Executor):
    """A Dask cluster, through `distributed.Client(address).get_executor()`. Needs flatprobe[dask].

    Args:
        address: of the scheduler, such as "tcp://10.0.0.1:8786"; None starts `workers` processes here.
        workers: number of processes where no address is given.

    Raises:
        ImportError: if `distributed` is not installed.
        ValueError: if a worker has several threads, since torch's random state belongs to the process.
    """

    def __init__(self, address: str | None = None, workers: int = 1) -> None:
        try:
            import distributed
        except ImportError as error:
            msg = "a Dask cluster needs distributed, which is not installed. Run pip install 'flatprobe[dask]'"
            raise ImportError(msg) from error
        client: Any = distributed.Client  # it has no types
        local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        self._client = client(address) if address else client(**local)
        threads = {worker["nthreads"] for worker in self._client.scheduler_info(n_workers=-1)["workers"].values()}
        if threads - {1}:
            self._client.close()
            msg = f"the workers of {address} must have one thread each, got {max(threads)}. Start them with nthreads 1"
            raise ValueError(msg)
        self._executor = self._client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of a call on a worker; Dask runs it again where the worker dies."""
        future: Future[Any] = self._executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the client, and the processes that were started here."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


class Slurm(Executor):
    """Slurm jobs by submitit, one per call, at most `workers` at a time. Needs flatprobe[slurm].

    submitit's jobs are no standard futures, so a thread looks at them every second. A job that ends without a result
    (a killed node, preemption) is submitted again, three times in all.

    Args:
        folder: of submitit's scripts and logs, which all nodes can reach.
        workers: the largest number of jobs at a time.
        parameters: of `submitit.AutoExecutor.update_parameters`, such as `{"slurm_partition": "gpu", "timeout_min":
            600}`.
        cluster: `"slurm"`; `"local"` runs the jobs as processes here, for trying a sweep out.

    Raises:
        ImportError: if submitit is not installed.
    """

    def __init__(
        self, folder: str | Path, workers: int = 1, parameters: Mapping[str, Any] | None = None, cluster: str = "slurm"
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            msg = "Slurm jobs need submitit, which is not installed. Run pip install 'flatprobe[slurm]'"
            raise ImportError(msg) from error
        self._lost: type[Exception] = submitit.core.utils.UncompletedJobError
        self._jobs = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
        self._jobs.update_parameters(**dict(parameters or {}))
        self._workers = workers
        self._queue: list[tuple[Future[Any], Callable[[], Any], int]] = []
        self._running: list[tuple[Any, Future[Any], Callable[[], Any], int]] = []
        self._open = True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of a call in a job."""
        future: Future[Any] = Future()
        self._queue.append((future, lambda: self._jobs.submit(fn, *args, **kwargs), 1))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the jobs, or cancel them."""
        if cancel_futures:
            for future, *_ in self._queue:
                future.cancel()
            for job, *_ in self._running:
                job.cancel()
            self._queue.clear()
        self._open = False
        if wait and not cancel_futures:
            self._thread.join()

    def _look(self) -> None:
        while self._open or self._queue or self._running:
            for entry in [entry for entry in self._running if entry[0].done()]:
                self._running.remove(entry)
                self._finish(*entry)
            while self._queue and len(self._running) < self._workers:
                future, start, starts = self._queue.pop(0)
                if starts == 1 and not future.set_running_or_notify_cancel():
                    continue
                try:
                    self._running.append((start(), future, start, starts))
                except Exception as error:  # noqa: BLE001 - sbatch may fail in many ways
                    future.set_exception(error)
            time.sleep(_POLL)

    def _finish(self, job: Any, future: Future[Any], start: Callable[[], Any], starts: int) -> None:
        try:
            future.set_result(job.result())
        except Exception as error:  # noqa: BLE001 - the future carries what the job raised
            if isinstance(error, self._lost) and starts < _STARTS and self._open:
                self._queue.append((future, start, starts + 1))
            else:
                future.set_exception(error)


def checked(executor: Executor) -> Executor:
    """The executor, unless it runs several units in one process, whose random state belongs to the process.

    Raises:
        ValueError: for a pool of threads.
    """
    if isinstance(executor, ThreadPoolExecutor):
        msg = "executor must not be a pool of threads, which share torch's random state. Take executor='processes'"
        raise ValueError(msg)
    return executor


def stop_processes(executor: Executor | None) -> bool:
    """End the processes of a pool at once, on Ctrl-C; what is complete stays, and trainings resume.

    Returns:
        True for a pool of processes, whose futures break then, and must not be cancelled before.
    """
    if isinstance(executor, ProcessPoolExecutor):
        for process in list((executor._processes or {}).values()):  # noqa: SLF001 - terminate_workers() is of Python 3.14
            process.terminate()
    return isinstance(executor, ProcessPoolExecutor)


def executor_by_name(
    name: str, workers: int, root: str | Path, address: str | None = None, slurm: Mapping[str, Any] | None = None
) -> Maker:
    """A function that makes the executor of a name.

    Raises:
        ValueError: for an unknown name.
    """
    makers: dict[str, Maker] = {
        "serial": Serial,
        "processes": lambda: processes(workers),
        "dask": lambda: Dask(address, workers),
        "slurm": lambda: Slurm(Path(root, "slurm"), workers, slurm),
    }
    one_of("executor", name, makers)
    at_least(1, workers=workers)
    return makers[name]


def executor_maker(
    executor: Checked[Executor | Maker | str | None], workers: int, root: str | Path
) -> tuple[Maker, bool]:
    """A function that makes the executor, and whether a new one can replace a broken one.

    Raises:
        TypeError: for anything but a name, an executor or a function.
    """
    if executor is None or isinstance(executor, str):
        return executor_by_name(executor or "serial", workers, root), True
    if isinstance(executor, Executor):
        given = checked(executor)
        return lambda: given, False
    other: object = executor
    if not callable(other):
        msg = f"executor must be a name, a concurrent.futures.Executor or a function that makes one, got {executor!r}"
        raise TypeError(msg)
    return executor, True
