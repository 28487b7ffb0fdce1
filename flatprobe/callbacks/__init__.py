"""Probes every k epochs of another library's training: `lightning.ProbeEvery` and `transformers.ProbeEvery`.

Each module needs the library of its name, an optional extra, and is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatprobe.callbacks import lightning as lightning
    from flatprobe.callbacks import transformers as transformers

__all__ = ["lightning", "transformers"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
        raise AttributeError(msg)
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
