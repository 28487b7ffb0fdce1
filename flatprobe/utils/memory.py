"""Batch sizes that fit into memory, and out-of-memory errors that name the fix."""

import gc
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

# Bytes of data that a stream keeps decoded, and that a risk keeps on its device: 3,500 color images of 224 x 224 pixels
# in float32. A quarter of the smallest GPUs in use, which have 8 GiB.
DATA_BYTES = 2 * 2**30
# Bytes of inputs and activations per batch: half of the smallest GPUs in use. The bound is fixed, so that the batch
# size does not depend on the machine.
BATCH_BYTES = 4 * 2**30

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "ALLOC_FAILED",
)  # In torch's errors of GPUs, CPUs, cuBLAS and cuDNN.


class _Sizes(threading.local):
    """Batch sizes of the present call: the largest allowed, and the one in use."""

    most: int | None = None
    used: int | None = None


_SIZES = _Sizes()


def samples_within(each: int, most: int, total: int = BATCH_BYTES) -> int:
    """Largest power of two of samples whose bytes are within a bound; at least 1.

    Args:
        each: bytes per sample.
        most: the largest number of samples, which need not be a power of two.
        total: bytes of all samples; `BATCH_BYTES` by default.

    Returns:
        The number of samples.

    >>> samples_within(100 * 2**20, 1024), samples_within(1, 100)
    (32, 100)
    """
    fits = max(1, total // max(1, each))
    return most if fits >= most else 1 << (fits.bit_length() - 1)


def fit_batch_size(size: int) -> int:
    """The batch size, or the smaller one that `halve_batches` allows at present.

    A call in `halve_batches` lets that function halve the size, so each pass over batches begins with one.
    """
    _SIZES.used = size if _SIZES.most is None else min(size, _SIZES.most)
    return _SIZES.used


def halve_batches(name: str, work: Callable[[], T]) -> T:
    """The result of the work, begun anew at half the batch size while memory runs out.

    Only the work's own batch sizes (`fit_batch_size`) are halved, not those of a `halve_batches` within it. The graph
    and the partial results of a failed try are freed before the next one.

    Args:
        name: name of the work in messages.
        work: the work; its result must not depend on the batch size.

    Returns:
        The result. After a halving, a warning names the size that fits.

    Raises:
        MemoryError: if memory runs out at one sample per batch, or in work without batches.
        RuntimeError: as MemoryError.
        ValueError: as MemoryError.
    """
    outer, first = vars(_SIZES).copy(), None
    try:
        while True:
            _SIZES.used = None
            try:
                result = work()
                break
            except (MemoryError, RuntimeError, ValueError) as error:  # Some of ours wrap torch's.
                size = _size_in_use()
                if not _is_out_of_memory(error) or "batch_size" in str(error):
                    raise
                if size is None or size == 1:
                    kind, msg = _explain(name, error, size)
                    raise kind(msg) from error
                first, _SIZES.most = first or size, size // 2
            # Only after the handler is the error gone, whose traceback holds the frames of the failed try.
            _free()
        if first is not None:
            fits = _size_in_use()
            msg = (
                f"{name} ran out of memory at batch_size={first} and was begun anew with smaller batches, at last with "
                f"{fits}. To save the failed tries, give batch_size={fits}, which a risk takes as "
                "EmpiricalRisk(..., batch_size=...)"
            )
            warnings.warn(msg, UserWarning, stacklevel=3)
        return result
    finally:
        _SIZES.most, _SIZES.used = outer.get("most"), outer.get("used")


def _size_in_use() -> int | None:
    return _SIZES.used


def _free() -> None:
    """Free what only reference cycles of frames and errors hold, and the blocks that torch keeps on a GPU."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _explain(name: str, error: BaseException, size: int | None) -> tuple[type[BaseException], str]:
    """The type of the out-of-memory error, and a message with the fix."""
    cause: BaseException | None = error
    while cause is not None:
        if _runs_out(cause):
            error = cause
        cause = cause.__cause__
    first = (str(error) or "no more can be allocated").splitlines()[0][:200]
    fix = (
        "Give a smaller batch_size, which a risk takes as EmpiricalRisk(..., batch_size=...)"
        if size is None
        else "It did so at batch_size=1: use a device with more memory, or fewer or smaller weights"
    )
    return type(error), f"{name} ran out of memory ({first}). {fix}"


def _is_out_of_memory(error: BaseException | None) -> bool:
    """True if an error or one of its causes says that memory is exhausted."""
    while error is not None:
        if _runs_out(error):
            return True
        error = error.__cause__
    return False


def _runs_out(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)
