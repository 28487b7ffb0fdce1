"""Checks of inputs and labels, and the tensors that inputs consist of."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs
from flatprobe.data.targets import as_tensors
from flatprobe.utils.arguments import as_json
from flatprobe.utils.tensor_files import bytes_of

# Rows checked or hashed at a time, so that no second copy of the data is held.
BLOCK = 4096

Positions = range | Tensor


def parts_of(inputs: Any, name: str = "inputs") -> dict[str, Tensor]:
    """Name in error messages -> tensor of the inputs.

    Args:
        inputs: a tensor, or a dict or tuple of tensors.
        name: name of the inputs.

    Returns:
        Name -> tensor.

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
                f"{entry} must be a tensor, or a dict or tuple of tensors, got {type(part).__name__}. Convert it with "
                "torch.as_tensor, and divide images by 255"
            )
            raise TypeError(msg)
    return parts


def shapes_of(sample: Any, kind: Callable[[Any], Any]) -> Any:
    """The shape of one sample; name -> shape for a dict or tuple of tensors.

    >>> shapes_of((torch.zeros(2), torch.zeros(3)), list)
    {'inputs[0]': [2], 'inputs[1]': [3]}
    """
    shapes = {name: kind(part.shape) for name, part in parts_of(sample).items()}
    return shapes.get("inputs", shapes)


def single_shape(sample: Inputs) -> tuple[int, ...]:
    """The shape of one sample.

    Raises:
        TypeError: if it is a dict or tuple of tensors.
    """
    if not isinstance(sample, Tensor):
        kind = type(sample).__name__
        msg = f"a sample is a {kind} of tensors and has no single shape. describe()['input_shape'] has all shapes"
        raise TypeError(msg)
    return tuple(sample.shape)


def as_dict(inputs: Any) -> Any:
    """A mapping, such as the output of a tokenizer, as a dict, and arrays as tensors; all else unchanged."""
    return as_tensors(dict(inputs) if isinstance(inputs, Mapping) else inputs)


def as_source(source: Mapping[str, object] | None) -> dict[str, Any]:
    """The origin of data as JSON gives it back.

    Raises:
        TypeError: for values that JSON does not have.
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(source or {}), default=as_json))
    except TypeError as error:
        msg = f"source must hold strings, numbers, lists and dicts, as JSON does ({error})"
        raise TypeError(msg) from error
    return found


def leave_inference_mode(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of a tensor that was made in inference mode."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(mode=False):
        return tensor.clone()


def rows(tensor: Tensor, positions: Positions) -> Tensor:
    """The rows at these positions: a view for a range, a copy for a tensor."""
    if isinstance(positions, range):
        return tensor[positions.start : positions.stop]
    return tensor.index_select(0, positions.to(tensor.device))


def as_list(positions: Positions) -> Sequence[int]:
    """The positions as integers."""
    return positions if isinstance(positions, range) else positions.tolist()


def check_positions(positions: Tensor, count: int) -> None:
    """Check positions of samples.

    Raises:
        IndexError: if a position is outside 0, ..., count - 1.
    """
    lowest, highest = map(int, positions.aminmax()) if len(positions) else (0, 0)
    if lowest < 0 or highest >= count:
        outside = (positions < 0) | (positions >= count)
        msg = f"position {int(positions[outside][0])} is outside the data; expected 0 to {count - 1}"
        raise IndexError(msg)


def check_finite(inputs: Inputs, positions: Sequence[int]) -> None:
    """Check that the floating inputs at these positions are finite.

    Raises:
        ValueError: for the first sample that is not finite.
    """
    for name, part in parts_of(inputs).items():
        if not part.is_floating_point():
            continue
        for start in range(0, len(part), BLOCK):
            finite = part[start : start + BLOCK].isfinite()
            finite = finite.flatten(1).all(1) if part.ndim > 1 else finite
            if not bool(finite.all()):
                sample = positions[start + int((~finite).nonzero()[0])]
                msg = f"{name} of sample {sample} must be finite, got NaN or infinity. Repair or drop the sample"
                raise ValueError(msg)


def warn_of_large(inputs: Any, stacklevel: int) -> None:
    """Warn if the first samples of one tensor look like pixels from 0 to 255."""
    if not isinstance(inputs, Tensor):
        return
    first = inputs[:64].flatten()
    if not first.is_floating_point() or len(first) < 64 or inputs[:1].numel() < 16 or not 128 <= first.max() <= 255:
        return
    if bool((first >= 0).all()) and bool((first == first.round()).all()):
        warnings.warn(
            "the inputs look like pixels from 0 to 255, and noise, budgets and steps have the units of the inputs. "
            "Pass inputs / 255, and fp.Normalised(network, mean, std) with the scale of the network (mean 0 and std "
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


def warn_of_missed_classes(labels: Tensor, count: int, stacklevel: int = 2) -> None:
    """Warn if the first samples miss more classes than chance, as in a sorted set."""
    sizes = labels.unique(return_counts=True)[1]  # type: ignore[no-untyped-call]
    missed = len(sizes) - len(labels[:count].unique())  # type: ignore[no-untyped-call]
    # In random order the number of missing classes has this mean, and a smaller variance.
    expected = float(((1 - sizes.double() / len(labels)) ** count).sum())
    if missed > expected + 3 * expected**0.5:
        warnings.warn(
            f"the first {count} of the {len(labels)} samples hold {len(sizes) - missed} of the {len(sizes)} classes, "
            "so the set is not in random order. Load it without limit=, and take data.subset(positions) from all parts",
            stacklevel=stacklevel,
        )
