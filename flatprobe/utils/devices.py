"""Devices by name."""

from contextlib import suppress

import torch


def as_device(device: str | torch.device) -> torch.device:
    """A device that this machine has.

    Args:
        device: a device of torch or its name, such as `"cuda"` or `"cuda:1"`.

    Returns:
        The device.

    Raises:
        ValueError: for another word, or a device that is not there.

    >>> as_device("cpu")
    device(type='cpu')
    """
    found = available()
    with suppress(RuntimeError, TypeError):
        asked = torch.device(device)
        if str(asked) in found or (str(asked) == asked.type and f"{asked.type}:0" in found):
            return asked
    msg = f"device must be one that this machine has, {', '.join(found)}, got {str(device)!r}. Name one of these"
    raise ValueError(msg)


def available() -> list[str]:
    """Names of the devices that torch can use on this machine, the CPU first."""
    mps = ["mps:0"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *mps]
