"""Inputs taken apart, and what inputs and labels must be."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from flatprobe.data.inputs import Inputs
from flatprobe.utils.tensor_files import bytes_of

# Rows checked or hashed at a time, so that no second copy of the data is ever held.
BLOCK = 4096

Positions = range | Tensor


def parts_of(inputs: Any, name: str = "inputs") -> dict[str, Tensor]:
    """The tensors that the inputs consist of, each under the name that an error calls it by.

    Args:
        inputs: a tensor, or a dict or tuple of tensors.
        name: what the inputs are called.

    Returns:
        Name to tensor.

    Raises:
        TypeError: for anything else.

    >>> list(parts_of({"ids": torch.zeros(2), "mask": torch.zeros(2)}))
    ["inputs['ids']", "inputs['mask']"]
    """
    if isinstance(inputs, Tensor):
        return {name: inputs}
    if isinstance(inputs, Mapping | tuple) and len(inputs):
        entries = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
        parts = {f"{name}[{key!r}]": part for key, part in entries}
    else:
        parts = {name: inputs}
    for entry, part in parts.items():
        if not isinstance(part, Tensor):
            msg = (
                f"{entry} is a {type(part).__name__}; expected a tensor, or a dict or tuple of tensors: convert it "
                "(torch.as_tensor for arrays and lists, divided by 255 for pictures)"
            )
            raise TypeError(msg)
    return parts


def plain(inputs: Any) -> Any:
    """A mapping, such as a tokenizer's output, as the dict of tensors that it holds; all else as it is."""
    return dict(inputs) if isinstance(inputs, Mapping) else inputs


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one made in inference mode, which no backward pass could keep."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(mode=False):
        return tensor.clone()


def rows(tensor: Tensor, positions: Positions) -> Tensor:
    """The rows at these positions: a view for a range, a copy for a tensor."""
    if isinstance(positions, range):
        return tensor[positions.start : positions.stop]
    return tensor[positions.to(tensor.device)]


def listed(positions: Positions) -> Sequence[int]:
    """The positions as integers."""
    return positions if isinstance(positions, range) else positions.tolist()


def checked_finite(inputs: Inputs, positions: Sequence[int]) -> None:
    """The floating inputs at these positions are finite.

    Raises:
        ValueError: naming the first sample that is not.
    """
    for name, part in parts_of(inputs).items():
        if not part.is_floating_point():
            continue
        for start in range(0, len(part), BLOCK):
            finite = part[start : start + BLOCK].isfinite()
            finite = finite.flatten(1).all(1) if part.ndim > 1 else finite
            if not bool(finite.all()):
                sample = positions[start + int((~finite).nonzero()[0])]
                msg = f"{name} of sample {sample} has values that are not finite (NaN or infinity); mend or drop it"
                raise ValueError(msg)


def checked_labels(labels: Any, positions: Sequence[int], classes: int | None) -> Int64[Tensor, " samples"]:
    """The labels of the samples at these positions as int64 on the CPU; False and True are 0 and 1.

    Args:
        labels: what was given.
        positions: the samples that they belong to.
        classes: the number of classes, where it was given.

    Returns:
        Labels, one a position.

    Raises:
        TypeError: for anything but a tensor of integers or booleans.
        ValueError: for another shape, or labels outside 0, ..., classes - 1.
    """
    if not isinstance(labels, Tensor):
        msg = f"the labels are a {type(labels).__name__}; expected an integer tensor: torch.as_tensor(labels)"
        raise TypeError(msg)
    if labels.ndim != 1:
        msg = f"the labels have shape {tuple(labels.shape)}; expected one dimension, (samples,): {_flat(labels)}"
        raise ValueError(msg)
    if labels.is_floating_point() or labels.is_complex():
        whole_numbers = bool((labels == labels.real.round()).all())
        cure = "labels.long()" if whole_numbers else "targets of a regression cannot be measured, only classifiers"
        msg = f"the labels have dtype {labels.dtype}; expected integers, class indices: {cure}"
        raise TypeError(msg)
    if len(labels) != len(positions):
        msg = f"there are {len(labels)} labels for {len(positions)} samples; expected one a sample"
        raise ValueError(msg)
    whole: Tensor = ordinary(labels.detach()).to("cpu", torch.int64)
    outside = (whole < 0) | (whole >= (torch.iinfo(torch.int64).max if classes is None else classes))
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        top = "" if classes is None else f" to {classes - 1}, since classes is {classes}"
        msg = f"the label of sample {positions[row]} is {int(whole[row])}; expected 0{top or ' or more'}"
        raise ValueError(msg)
    return whole


def _flat(labels: Tensor) -> str:
    """What makes one label a sample of labels of another shape."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "labels.squeeze(1)"
    if labels.ndim == 2 and bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(1) == 1).all()):
        return "labels.argmax(1) of these one-hot rows"
    return "labels of several parts of a sample (pixels, tokens, attributes) cannot be measured"


def tell_large(inputs: Tensor, stacklevel: int) -> None:
    """A warning where the first samples look like pixels from 0 to 255."""
    first = inputs[:64].flatten()
    if not first.is_floating_point() or len(first) < 64 or inputs[:1].numel() < 16 or not 128 <= first.max() <= 255:
        return
    if bool((first >= 0).all()) and bool((first == first.round()).all()):
        warnings.warn(
            "the inputs look like pixels from 0 to 255, and noise, budgets and steps are in the inputs' units; "
            "expected [0, 1]: inputs / 255, with fp.Normalised(network, mean, std) for what the network wants (0 and "
            "1 / 255 where it was trained on these)",
            stacklevel=stacklevel,
        )


def digest(parts: Mapping[str, Tensor]) -> str:
    """blake2b of the tensors' names, shapes, dtypes and bytes, in hex."""
    found = hashlib.blake2b(digest_size=16)
    for name, part in parts.items():
        found.update(f"{name} {tuple(part.shape)} {part.dtype}".encode())
        for start in range(0, len(part), BLOCK):
            found.update(bytes_of(part[start : start + BLOCK]))
    return found.hexdigest()


def tell_missed_classes(labels: Tensor, count: int, stacklevel: int = 2) -> None:
    """A warning where the first samples miss more of the split's classes than chance does, as in a sorted set."""
    sizes = labels.unique(return_counts=True)[1]  # type: ignore[no-untyped-call]
    missed = len(sizes) - len(labels[:count].unique())  # type: ignore[no-untyped-call]
    # In random order the number of classes that are missed has this mean, and a variance below it.
    expected = float(((1 - sizes.double() / len(labels)) ** count).sum())
    if missed > expected + 3 * expected**0.5:
        warnings.warn(
            f"the first {count} of the {len(labels)} samples hold {len(sizes) - missed} of the {len(sizes)} classes, "
            "so the set is not in random order; expected samples of all classes: load it without limit=, and take "
            "data.subset(positions) from all over it",
            stacklevel=stacklevel,
        )
