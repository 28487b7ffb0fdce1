"""Runner of a sweep's units through any executor, made anew when a worker dies."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait

from flatprobe.studies.executors import Maker, checked, stop_processes
from flatprobe.studies.units import Row, Unit, fail, run_unit


class Runner:
    """Units through an executor that is made anew when it breaks."""

    def __init__(self, make: Maker, *, replaceable: bool, retries: int) -> None:
        self._make, self._replaceable, self._retries = make, replaceable, retries
        self._executor: Executor | None = None
        self._futures: dict[Future[list[Row]], Unit] = {}

    def run(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        """Units and their rows, as they become complete.

        Raises:
            BrokenExecutor: if workers die before they begin.
        """
        waiting = []
        for unit in units:
            if unit.is_complete():
                yield unit, run_unit(unit)
            else:
                waiting.append(unit)
        idle = 0
        while waiting:
            unfinished: list[Unit] = []
            before = len(waiting)
            yield from self._pass(waiting, unfinished)
            # The units that ran when a worker died run alone, so that a unit that kills its worker is told from others.
            suspects = [unit for unit in unfinished if unit.was_running()]
            waiting = [unit for unit in unfinished if unit not in suspects]
            idle = idle + 1 if len(waiting) == before else 0
            if idle == self._retries:
                msg = (
                    f"the workers died {idle} times before they began a unit. A script with worker processes needs the "
                    'guard if __name__ == "__main__": around its calls; or use executor="serial" to see the error'
                )
                raise BrokenExecutor(msg)
            for unit in suspects:
                yield unit, self._alone(unit)

    def _pass(self, units: Sequence[Unit], unfinished: list[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        """Submit the units and yield them as they end; units of a broken executor are listed as unfinished."""
        for unit in units:
            future = self._submit(unit)
            self._futures[future] = unit
            if future.done() and not _is_broken(future):  # of an executor that calls at once
                yield self._result(future)
        while self._futures:
            for future in wait(self._futures, return_when=FIRST_COMPLETED).done:
                if _is_broken(future):
                    unfinished.append(self._futures.pop(future))
                else:
                    yield self._result(future)
        if unfinished:
            self._replace()

    def _alone(self, unit: Unit) -> list[Row]:
        error: BaseException | None = None
        for _ in range(self._retries):
            future = self._submit(unit)
            error = _error_of(future)
            if error is None:
                return future.result()
            if not isinstance(error, BrokenExecutor):
                break
            self._replace()
        assert error is not None
        return fail(unit, error)

    def _submit(self, unit: Unit) -> "Future[list[Row]]":
        if self._executor is None:
            self._executor = checked(self._make())
        try:
            return self._executor.submit(run_unit, unit)
        except BrokenExecutor as error:  # it broke between two calls
            broken: Future[list[Row]] = Future()
            broken.set_exception(error)
            return broken

    def _replace(self) -> None:
        """Drop the broken executor.

        Raises:
            BrokenExecutor: if it was given as it is.
        """
        if not self._replaceable:
            msg = "the executor broke, since a worker died. Give sweep a function that makes it, or call it again"
            raise BrokenExecutor(msg)
        self.close()

    def close(self, *, wait: bool = True) -> None:
        """Cancel what has not begun, and shut the executor down if it is the sweep's own."""
        if wait or not self._replaceable or not stop_processes(self._executor):
            for future in self._futures:
                future.cancel()
        self._futures.clear()
        if self._replaceable and self._executor is not None:
            self._executor.shutdown(wait=wait)
        self._executor = None

    def _result(self, future: "Future[list[Row]]") -> tuple[Unit, list[Row]]:
        unit = self._futures.pop(future)
        error = _error_of(future)
        return unit, (future.result() if error is None else fail(unit, error))


def _is_broken(future: "Future[list[Row]]") -> bool:
    return isinstance(_error_of(future), BrokenExecutor)


def _error_of(future: "Future[list[Row]]") -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:  # of a scheduler that is gone
        return error
