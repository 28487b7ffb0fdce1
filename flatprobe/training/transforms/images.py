"""Image inputs of a transform: their check, and windows of them."""

import torch
from torch import Tensor

from flatprobe.training.forward import ForwardPass


def check_images(passed: ForwardPass, name: str) -> Tensor:
    """The inputs (samples, channels, height, width), detached.

    Args:
        passed: a batch.
        name: of the transform, for the message.

    Raises:
        ValueError: for inputs of other shapes.
    """
    inputs = passed.inputs.detach()
    if inputs.ndim != 4:
        msg = (
            f"the transform {name!r} met inputs of shape {tuple(inputs.shape)}; expected images (samples, channels, "
            "height, width): keep the data in that shape and let the network flatten it"
        )
        raise ValueError(msg)
    return inputs


def windows(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at (samples, height) rows and (samples, width) columns of each image, in all channels."""
    samples, channels = (torch.arange(n, device=images.device) for n in images.shape[:2])
    index = samples[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    return images[index]
