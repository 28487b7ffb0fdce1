"""Out-of-memory errors that name the batch size as the fix."""

from collections.abc import Iterator
from contextlib import contextmanager

_WORDS = ("out of memory", "can't allocate memory")  # in torch's errors of GPUs and CPUs


@contextmanager
def name_batch_size(name: str) -> Iterator[None]:
    """Let an out-of-memory error in the block name `batch_size` as the fix.

    Args:
        name: the probe or operation in the block.

    Raises:
        MemoryError: the error of the block, with the fix where memory ran out.
        RuntimeError: as MemoryError.
        ValueError: as MemoryError.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:  # some of ours wrap torch's
        cause = _short_of_memory(error)
        if cause is None or "batch_size" in str(error):
            raise
        first = (str(cause) or "no more can be allocated").splitlines()[0][:200]
        msg = (
            f"{name} ran out of memory ({first}). Give a smaller batch_size, which a risk takes as "
            "EmpiricalRisk(..., batch_size=...)"
        )
        raise type(cause)(msg) from error


def _short_of_memory(error: BaseException | None) -> BaseException | None:
    """The out-of-memory error among an error and its causes, or None."""
    found = None
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS):
            found = error
        error = error.__cause__
    return found
