"""Precision of torch's products of float32 numbers, and a context that keeps all of their digits."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_BACKENDS: Any = torch.backends  # which has no annotations of these settings
# By library and operation. Torch computes convolutions on a GPU in TF32 unless told otherwise.
_SETTINGS = {
    "cuda matmul": _BACKENDS.cuda.matmul,
    "cuda conv": _BACKENDS.cudnn.conv,
    "cuda rnn": _BACKENDS.cudnn.rnn,
    "cpu matmul": _BACKENDS.mkldnn.matmul,
    "cpu conv": _BACKENDS.mkldnn.conv,
    "cpu rnn": _BACKENDS.mkldnn.rnn,
}
_FULL = ("ieee", "none")

_LOCK = threading.Lock()
_running = 0  # blocks of all threads
_before: dict[str, str] = {}  # The settings before the first of the blocks that run.


def requested() -> bool:
    """True if the user set `torch.backends.fp32_precision` to a reduced precision, such as "tf32"."""
    return _BACKENDS.fp32_precision not in _FULL


def reduced_products() -> dict[str, str]:
    """Library and operation -> the reduced precision in which it multiplies float32 numbers, such as "tf32"."""
    return {name: own.fp32_precision for name, own in _SETTINGS.items() if own.fp32_precision not in _FULL}


def describe_products() -> str:
    """The precision of products of float32 numbers, for the settings of a measurement."""
    return ", ".join(f"{value} in {name}" for name, value in reduced_products().items()) or "full"


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 numbers without TF32 or bfloat16 in the block, unless they are `requested`.

    The settings belong to the process. Where blocks overlap, the last one restores them.
    """
    global _running
    with _LOCK:
        if not _running and not requested():
            _before.update(reduced_products())
            _set(dict.fromkeys(_before, "ieee"))
        _running += 1
    try:
        yield
    finally:
        with _LOCK:
            _running -= 1
            if not _running:
                _set(_before)
                _before.clear()


def _set(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        _SETTINGS[name].fp32_precision = value
