"""Precision of torch's products of float32 numbers, and a context that keeps all of their digits."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
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
# The older switches, each with its setting of full precision. Parts of torch read these (`torch.export` does), which
# torch refuses once a newer setting differs from them. So a newer setting changes alone only if the user set it.
_OLDER: tuple[tuple[Callable[[], Any], Callable[[Any], None], Any], ...] = (
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (torch._C._get_cudnn_allow_tf32, torch._C._set_cudnn_allow_tf32, False),  # noqa: SLF001 - the property's functions
)

_LOCK = threading.Lock()
_running = 0  # blocks of all threads
_undo: list[Callable[[], None]] = []  # What restores the settings before the first of the blocks that run.


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
        if not _running and not requested() and reduced_products():
            _keep_digits()
        _running += 1
    try:
        yield
    finally:
        with _LOCK:
            _running -= 1
            while not _running and _undo:
                _undo.pop()()


def _keep_digits() -> None:
    before = {name: own.fp32_precision for name, own in _SETTINGS.items()}
    _undo.append(lambda: _set(before))  # the last to run
    for read, write, full in _OLDER:
        with suppress(RuntimeError):  # Torch cannot tell, since the user set the newer ones.
            value = read()
            if value != full:
                _undo.append(partial(write, value))
                write(full)
    _set(dict.fromkeys(reduced_products(), "ieee"))


def _set(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        if _SETTINGS[name].fp32_precision != value:
            _SETTINGS[name].fp32_precision = value
