"""Fingerprint of the training data of a network."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from flatprobe.data import LabelledData

_MARK = "trained_on"


def mark_training_data(module: nn.Module, fingerprint: str) -> None:
    """Record the fingerprint of the training data in a network."""
    setattr(module, _MARK, fingerprint)


def training_data(module: nn.Module) -> set[str]:
    """Fingerprints of the data on which `fp.train` is known to have trained the network; empty for other networks."""
    return {vars(layer)[_MARK] for layer in module.modules() if _MARK in vars(layer)}


def trained_on(module: nn.Module, data: LabelledData) -> bool:
    """True if `fp.train` is known to have trained the network on these data."""
    marks = training_data(module)
    return bool(marks) and data.fingerprint in marks


def warn_of_training_data(settings: Mapping[str, Any]) -> None:
    """Warn that a band for fresh samples was computed from training samples."""
    if settings.get("own_samples", False):
        warnings.warn(
            "the network was trained on these samples: the band holds for a network that has not seen the "
            "measured samples, and the value on fresh samples may be far outside; probe held-out data",
            stacklevel=3,
        )
