"""Memory that runs out: the error names what takes less of it."""

from collections.abc import Iterator
from contextlib import contextmanager

_WORDS = ("out of memory", "can't allocate memory")  # in torch's errors of GPUs and CPUs


@contextmanager
def batch_named(name: str) -> Iterator[None]:
    """The error of what runs in the block names `batch_size` where memory runs out.

    Args:
        name: of what runs.

    Raises:
        MemoryError: as it came, with the batch size.
        RuntimeError: likewise.
        ValueError: as it came, where it tells of something else.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:  # some of ours wrap torch's
        cause = _short_of_memory(error)
        if cause is None or "batch_size" in str(error):
            raise
        first = (str(cause) or "no more can be allocated").splitlines()[0][:200]
        msg = (
            f"{name} ran out of memory ({first}); expected a batch that fits: give a smaller batch_size (to "
            "EmpiricalRisk(..., batch_size=...) where a risk is measured)"
        )
        raise type(cause)(msg) from error


def _short_of_memory(error: BaseException | None) -> BaseException | None:
    """The error, or the one that it came from, that says so; None if there is none."""
    found = None
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS):
            found = error
        error = error.__cause__
    return found
