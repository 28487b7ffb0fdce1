"""The error of surfaces of the risk, which is absent where the task has none."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas


def has_error(surface: Any) -> bool:
    """True unless the error is NaN at all points of finite loss, as for targets that are no classes.

    Args:
        surface: an `Interpolation` or a `RandomSlice`.
    """
    known = surface.loss.isfinite()
    return not bool(known.any()) or bool(surface.error[known].isfinite().any())


def error_of(frame: "pandas.DataFrame") -> Tensor:
    """The error column of a table; NaN where it has none."""
    if "error" not in frame:
        return torch.full((len(frame),), torch.nan, dtype=torch.float64, device="cpu")
    return torch.from_numpy(frame["error"].to_numpy(copy=True))
