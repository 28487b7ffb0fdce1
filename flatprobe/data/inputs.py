"""Network inputs: a tensor, or a dict or tuple of tensors, one of which may move."""

from collections.abc import Callable

import torch
from torch import Tensor

Inputs = Tensor | dict[str, Tensor] | tuple[Tensor, ...]
Held = tuple[dict[str, Tensor] | tuple[Tensor, ...], str | int]

_FEW = 4  # samples with which derivatives are checked


def tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    """All tensors of the inputs."""
    return tuple(inputs.values()) if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """The function applied to each tensor, in the same dict or tuple."""
    if isinstance(inputs, dict):
        return {name: function(part) for name, part in inputs.items()}
    return tuple(map(function, inputs)) if isinstance(inputs, tuple) else function(inputs)


def compute_logits(logits: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
    """Logits of the inputs; a single sample that the network refuses is passed twice.

    A `squeeze` in a network's forward removes the batch dimension of a single sample.

    Args:
        logits: inputs -> (samples, classes).
        inputs: one or more samples.

    Returns:
        (samples, classes).
    """
    if len(tensors(inputs)[0]) != 1:
        return logits(inputs)
    try:
        return logits(inputs)
    except (RuntimeError, IndexError, ValueError):
        try:
            return logits(map_tensors(lambda part: part.repeat_interleave(2, 0), inputs))[:1]
        except (RuntimeError, IndexError, ValueError):
            pass  # the first error is raised
        raise


def each_alone(inputs: Inputs) -> list[Inputs]:
    """The inputs of each sample, as batches of one."""
    samples = zip(*(torch.split(part, 1) for part in tensors(inputs)), strict=True)
    return [
        dict(zip(inputs, own, strict=True))
        if isinstance(inputs, dict)
        else own
        if isinstance(inputs, tuple)
        else own[0]
        for own in samples
    ]


def as_arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments of a module for its inputs."""
    return ((), inputs) if isinstance(inputs, dict) else (tensors(inputs), {})


def fix_of_integers(inputs: Inputs) -> str:
    """Fix for integer inputs, which cannot move: floating pixels, or the embedding."""
    if any(part.dtype == torch.uint8 and part.ndim > 2 for part in tensors(inputs)):
        return (
            "make the images floating, inputs.float() / 255, with fp.Normalised(network, mean, std) for the network's "
            "own scale (mean 0 and std 1 / 255 where it divides by 255 itself)"
        )
    return "measure at the embedding, model, data = fp.at_embedding(model, data)"


def only_floating(inputs: dict[str, Tensor] | tuple[Tensor, ...]) -> str | int | None:
    """Name or position of the only floating tensor, or None.

    >>> import torch
    >>> only_floating({"pixel_values": torch.zeros(2, 3), "mask": torch.ones(2, 3, dtype=torch.bool)})
    'pixel_values'
    """
    entries = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    found: list[str | int] = [key for key, part in entries if part.is_floating_point()]
    return found[0] if len(found) == 1 else None


def join(held: Held, moving: Tensor) -> Inputs:
    """The fixed inputs with another tensor at the place that moves.

    Raises:
        ValueError: if the tensor has another number of samples, since a mask belongs to its sample.
    """
    inputs, place = held
    own = inputs[place]  # type: ignore[index] # the place is of the kind that the container has
    if len(own) != len(moving):
        msg = (
            f"the input {place!r} must have {len(own)} samples, as the other inputs that are held fixed have, got "
            f"{len(moving)}. Fix the other inputs of the same samples"
        )
        raise ValueError(msg)
    if isinstance(inputs, dict):
        return {name: moving if name == place else part for name, part in inputs.items()}
    return tuple(moving if index == place else part for index, part in enumerate(inputs))


def channels_last(value: Tensor) -> Tensor:
    """A 4-D tensor in channels-last layout; other tensors unchanged.

    With one channel both layouts have the same bytes, and torch's kernels depend on the strides alone, which arithmetic
    resets: a view has the strides of channels-last again.
    """
    if value.ndim != 4:
        return value
    if value.shape[1] == 1:
        return value.contiguous().squeeze(1).unsqueeze(-1).permute(0, 3, 1, 2)
    return value.contiguous(memory_format=torch.channels_last)


def default_layout(value: Tensor) -> Tensor:
    """A tensor in torch's default layout and strides, copied if necessary."""
    strides, step = [], 1
    for size in reversed(value.shape):
        strides.append(step)
        step *= size
    return value if value.stride() == tuple(reversed(strides)) else value.clone(memory_format=torch.contiguous_format)


def few_rows(count: int, most: int = _FEW) -> Tensor:
    """Positions of a few samples, at most `most`, spread over a batch of `count`."""
    return torch.linspace(0, count - 1, min(most, count), device="cpu").round().long()
