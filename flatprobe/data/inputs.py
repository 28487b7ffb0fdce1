"""What a network is given: a tensor, or a dict or tuple of tensors, of which one may move while the others rest."""

from collections.abc import Callable

import torch
from torch import Tensor

Inputs = Tensor | dict[str, Tensor] | tuple[Tensor, ...]
Held = tuple[dict[str, Tensor] | tuple[Tensor, ...], str | int]

_FEW = 4  # samples that derivatives are looked at with


def tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    """The tensors that the inputs consist of."""
    return tuple(inputs.values()) if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)


def mapped(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """The function of each of the tensors, in the same dict or tuple."""
    if isinstance(inputs, dict):
        return {name: function(part) for name, part in inputs.items()}
    return tuple(map(function, inputs)) if isinstance(inputs, tuple) else function(inputs)


def never_alone(logits: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
    """The logits of the inputs; of a single sample that is refused alone, as one of two that are alike.

    A `squeeze` in a network's forward takes the batch of a single sample away.

    Args:
        logits: inputs -> (samples, classes).
        inputs: of one or more samples.

    Returns:
        (samples, classes).
    """
    if len(tensors(inputs)[0]) != 1:
        return logits(inputs)
    try:
        return logits(inputs)
    except (RuntimeError, IndexError, ValueError):
        try:
            return logits(mapped(lambda part: part.repeat_interleave(2, 0), inputs))[:1]
        except (RuntimeError, IndexError, ValueError):
            pass  # told by the first error
        raise


def as_arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """What a module is called with: a dict by keyword, a tuple by place."""
    return ((), inputs) if isinstance(inputs, dict) else (tensors(inputs), {})


def fix_of_integers(inputs: Inputs) -> str:
    """What makes integer inputs such as can move: of bytes in a picture's shape, floating pixels."""
    if any(part.dtype == torch.uint8 and part.ndim > 2 for part in tensors(inputs)):
        return (
            "make the pictures floating, inputs.float() / 255, with fp.Normalised(network, mean, std) for what the "
            "network wants (0 and 1 / 255 where it divides by 255 itself)"
        )
    return "measure at the embedding, model, data = fp.at_embedding(model, data)"


def only_floating(inputs: dict[str, Tensor] | tuple[Tensor, ...]) -> str | int | None:
    """The name or place of the only floating tensor, the one that can move; None where there are none or several.

    >>> import torch
    >>> only_floating({"pixel_values": torch.zeros(2, 3), "mask": torch.ones(2, 3, dtype=torch.bool)})
    'pixel_values'
    """
    entries = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    found: list[str | int] = [key for key, part in entries if part.is_floating_point()]
    return found[0] if len(found) == 1 else None


def joined(held: Held, moving: Tensor) -> Inputs:
    """The held inputs with another tensor at the place that moves.

    Raises:
        ValueError: if that has another number of samples: each sample has its own mask, say.
    """
    inputs, place = held
    own = inputs[place]  # type: ignore[index] # the place is of the kind that the container has
    if len(own) != len(moving):
        msg = (
            f"{len(moving)} samples were passed to a network that holds the other inputs (all but {place!r}) of "
            f"{len(own)}; expected the same samples: hold the inputs of the ones that are passed"
        )
        raise ValueError(msg)
    if isinstance(inputs, dict):
        return {name: moving if name == place else part for name, part in inputs.items()}
    return tuple(moving if index == place else part for index, part in enumerate(inputs))


def channels_last(value: Tensor) -> Tensor:
    """A 4-D tensor in channels-last layout; others as they are.

    With one channel both layouts have the same bytes and torch's kernels go by the strides alone, which arithmetic
    resets: they are written anew, as a view.
    """
    if value.ndim != 4:
        return value
    if value.shape[1] == 1:
        return value.contiguous().squeeze(1).unsqueeze(-1).permute(0, 3, 1, 2)
    return value.contiguous(memory_format=torch.channels_last)


def default_layout(value: Tensor) -> Tensor:
    """A tensor in torch's default layout, with the strides that tell it; one that has them as it is."""
    strides, step = [], 1
    for size in reversed(value.shape):
        strides.append(step)
        step *= size
    return value if value.stride() == tuple(reversed(strides)) else value.clone(memory_format=torch.contiguous_format)


def few_rows(count: int) -> Tensor:
    """The numbers of a few samples, spread over a batch of `count`, which derivatives are looked at with."""
    return torch.linspace(0, count - 1, min(_FEW, count), device="cpu").round().long()
