"""Differences of a checkpoint's tensors from those of a network, for errors."""

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_LISTED = 10
_COMPARED = 2000  # names among which the closest is looked for
_ALIKE = 0.6  # difflib's own default


def differences(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The differences in words, at most ten names of each kind; empty without any.

    Args:
        found: tensors of the checkpoint, under the network's names where these are known.
        own: tensors of the network.
    """
    both = [(name, found[name], value) for name, value in own.items() if name in found]
    tied = {id(value): there for _, there, value in both}
    missing = [name for name in own if name not in found]
    unexpected = [name for name in found if name not in own]
    kinds = {
        "missing": [f"{name}{_closest(name, own[name], unexpected, found)}" for name in missing[:_LISTED]],
        "unexpected": unexpected[:_LISTED],
        "of another shape": [
            f"{name} {tuple(there.shape)} instead of {tuple(value.shape)}"
            for name, there, value in both
            if there.shape != value.shape
        ],
        "of another kind of number": [
            f"{name} {there.dtype} instead of {value.dtype}"
            for name, there, value in both
            if _kind(there) != _kind(value) and not (value.is_complex() and there.is_floating_point())
        ],
        "tied to another name here, and of other values": [
            name for name, there, value in both if not (tied[id(value)] is there or torch.equal(tied[id(value)], there))
        ],
    }
    counts = {kind: len(names) for kind, names in kinds.items()} | {
        "missing": len(missing),
        "unexpected": len(unexpected),
    }
    shapes = "of another shape"
    if counts[shapes] > counts["missing"] + counts["unexpected"]:  # a network of other sizes, whose shapes say the most
        kinds = {shapes: kinds[shapes]} | kinds
    return "; ".join(
        f"{counts[kind]} {kind}: {', '.join(names[:_LISTED])}{', ...' if counts[kind] > _LISTED else ''}"
        for kind, names in kinds.items()
        if names
    )


def _closest(name: str, value: Tensor, others: Sequence[str], found: Mapping[str, Tensor]) -> str:
    """The checkpoint's tensor that is most like a missing one: of the same shape first, then by its name."""
    pool = others[:_COMPARED]
    same = [other for other in pool if other in found and found[other].shape == value.shape]
    alike = difflib.get_close_matches(name, same, 1, 0.0) or difflib.get_close_matches(name, pool, 1, _ALIKE)
    return f" (closest: {alike[0]})" if alike else ""


def _kind(value: Tensor) -> str:
    """Kind of number: complex, floating or integer."""
    return "complex" if value.is_complex() else "floating" if value.is_floating_point() else "integer"
