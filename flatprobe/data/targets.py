"""Targets of samples: class indices, or any tensor with one row per sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensors(given: Any) -> Any:
    """NumPy arrays, alone or in a dict or tuple, as tensors that share their memory; all else unchanged."""
    if isinstance(given, np.ndarray) and given.dtype != object:
        # Torch warns of read-only memory, and does not take negative strides or another byte order.
        native = given.astype(given.dtype.newbyteorder("="), copy=not given.flags.writeable or min(given.strides) < 0)
        return torch.from_numpy(native)
    if isinstance(given, tuple):
        return tuple(map(as_tensors, given))
    return {key: as_tensors(part) for key, part in given.items()} if isinstance(given, dict) else given


def check_targets(labels: Any, positions: Sequence[int], classes: int | None) -> Tensor:
    """Targets on the CPU: integers and booleans as int64, floating ones in their dtype.

    Args:
        labels: the given targets.
        positions: positions of their samples.
        classes: number of classes, or None.

    Returns:
        One row per position.

    Raises:
        TypeError: for anything but a real tensor or array.
        ValueError: for another number of rows, targets that are not finite, or labels outside 0, ..., classes - 1.
        ValueError: for a number of classes beside targets that are no class indices.
    """
    given = as_tensors(labels)
    if not isinstance(given, Tensor) or given.is_complex():
        kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
        msg = (
            f"labels must be a real tensor or an array, one row per sample, got {kind}. Use torch.as_tensor(labels), "
            "integers for classes and floating numbers for a regression"
        )
        raise TypeError(msg)
    if given.ndim == 0 or len(given) != len(positions):
        found = len(given) if given.ndim else "a single number"
        msg = f"labels must be one per sample, {len(positions)}, got {found}"
        raise ValueError(msg)
    targets = given.detach()
    if targets.is_inference():
        with torch.inference_mode(mode=False):
            targets = targets.clone()
    targets = targets.cpu() if targets.is_floating_point() else targets.to("cpu", torch.int64)
    if are_classes(targets):
        _check_range(targets, positions, classes)
    else:
        if classes is not None:
            msg = f"classes must be left out unless the labels are class indices, got {classes}: {explain(targets)}"
            raise ValueError(msg)
        _check_finite(targets, positions)
    return targets


def _check_range(labels: Tensor, positions: Sequence[int], classes: int | None) -> None:
    outside = (labels < 0) | (labels >= (torch.iinfo(torch.int64).max if classes is None else classes))
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        top = "" if classes is None else f" to {classes - 1}, since classes is {classes}"
        msg = f"the label of sample {positions[row]} is {int(labels[row])}; expected 0{top or ' or more'}"
        raise ValueError(msg)


def are_classes(targets: Tensor) -> bool:
    """True for class indices: integers of shape (samples,)."""
    return targets.ndim == 1 and not targets.is_floating_point()


def to_classes(targets: Tensor) -> Tensor:
    """Class indices from 0.0 and 1.0, or from one column of 0 and 1.

    Raises:
        ValueError: for other targets.
    """
    if not (targets.ndim == 1 or targets.shape[1:] == (1,)) or not _are_bits(targets):
        msg = f"the labels must be class indices, integers of shape (samples,): {explain(targets)}"
        raise ValueError(msg)
    return targets.flatten().long()


def explain(targets: Tensor) -> str:
    """Description of targets that are no class indices, and a fix."""
    found = f"these are {str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}"
    whole = bool((targets == targets.round()).all()) if targets.is_floating_point() else True
    if _are_bits(targets) and targets.ndim == 2 and targets.shape[1] > 1 and bool((targets.sum(1) == 1).all()):
        return f"{found}, one-hot rows: labels.argmax(1) are the class indices"
    if whole and (targets.ndim == 1 or targets.shape[1:] == (1,)):
        column = ".squeeze(1)" if targets.ndim == 2 else ""
        return f"{found}: labels.long(){column} are the class indices" + (
            ", unless they are the targets of a regression" if targets.is_floating_point() else ""
        )
    if targets.ndim == 2 and _are_bits(targets):
        kind, loss = "several attributes", "binary_cross_entropy"
    elif targets.is_floating_point():
        kind, loss = "a regression", "squared_error"
    else:
        kind, loss = ("tokens", "token_cross_entropy") if targets.ndim == 2 else ("pixels", "pixel_cross_entropy")
    return (
        f"{found}, as for {kind}, which the probes in weight space measure: fp.EmpiricalRisk(model, data, "
        f"loss={loss!r})"
    )


def shape_and_dtype(targets: Tensor) -> dict[str, object]:
    """The targets of one sample, for records."""
    return {"shape": list(targets.shape[1:]), "dtype": str(targets.dtype).removeprefix("torch.")}


def in_words(targets: Tensor | None, classes: int | None) -> str:
    """The targets in a few words: the number of classes, or their dtype and the shape of one sample."""
    if classes is not None or targets is None:
        return f"{classes} classes"
    return f"{str(targets.dtype).removeprefix('torch.')} targets of {tuple(targets.shape[1:])}"


def _are_bits(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())


def _check_finite(targets: Tensor, positions: Sequence[int]) -> None:
    if not targets.is_floating_point() or bool(targets.isfinite().all()):
        return
    row = int((~targets.isfinite()).reshape(len(targets), -1).any(1).nonzero()[0])
    msg = f"the target of sample {positions[row]} must be finite, got NaN or infinity. Repair or drop the sample"
    raise ValueError(msg)
