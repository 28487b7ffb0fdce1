"""Outputs of networks in a precision that losses can use."""

from jaxtyping import Float
from torch import Tensor


def at_least_single(outputs: Float[Tensor, "samples ..."]) -> Float[Tensor, "samples ..."]:
    """The outputs in float32 at least, since half precision has steps of 1 %."""
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs
