"""Torch's fast attention kernels set aside where they compute another function, or cannot be differentiated twice."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def without_fast_path() -> Iterator[None]:
    """`nn.TransformerEncoder` is evaluated as it is defined, whether gradients are asked for or not.

    Its fast path, taken in eval mode without gradients, cuts the padded tokens off: it returns zeros there, and as many
    tokens as the batch's longest sample has. Such a network would be one function under a gradient and another without
    one, and would depend on the batch.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def twice_differentiable() -> AbstractContextManager[None]:
    """Scaled dot-product attention by its plain formula: the fused kernels' backward passes have no derivative."""
    return sdpa_kernel(SDPBackend.MATH)
