"""Whether a network is probed on the samples that it was trained on, where that is known."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from flatprobe.data import LabelledData

_MARK = "trained_on"


def mark(module: nn.Module, fingerprint: str) -> None:
    """Note on a network which data it was trained on, by their fingerprint."""
    setattr(module, _MARK, fingerprint)


def own_samples(module: nn.Module, data: LabelledData) -> bool:
    """Whether `fp.train` trained the network, or one inside it, on these data; False where it is not known."""
    marks = {vars(layer)[_MARK] for layer in module.modules() if _MARK in vars(layer)}
    return bool(marks) and data.fingerprint in marks


def warn_of_own(settings: Mapping[str, Any]) -> None:
    """Warn that a band for fresh samples was made of the network's own training samples."""
    if settings.get("own_samples", False):
        warnings.warn(
            "these are the samples that the network was trained on: the band is that of fresh samples for a network "
            "that has not seen the measured ones, and fresh samples may lie far outside; probe held-out data",
            stacklevel=3,
        )
