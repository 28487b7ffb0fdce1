"""Files of arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

FILES = (".npz", ".pt", ".pth")


def read_file(file: Path) -> Any:
    """The arrays in a file of NumPy or torch; no code in it is executed.

    Raises:
        ValueError: for another file, or one that cannot be read.
    """
    try:
        if file.suffix.lower() == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # any error of a damaged or hostile file
        msg = (
            f"{file} must hold arrays without other objects, and cannot be read ({type(error).__name__}). "
            "Write it by numpy.savez(file, x=inputs, y=labels) or torch.save((inputs, labels), file)"
        )
        raise ValueError(msg) from error
