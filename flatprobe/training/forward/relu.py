"""ReLU whose second derivative needs no tensor of zeros, since 1[z > 0] is a constant."""

from typing import Any

import torch
from torch import Tensor


def rectify(inputs: Tensor, *, private: bool = False) -> Tensor:
    """max(0, z), with torch's derivative 0 at z = 0.

    Args:
        inputs: z.
        private: True if nothing else refers to z: z is then saved for the backward pass instead of the outputs, which
            may be written to.
    """
    result: Tensor = _Rectify.apply(inputs, private)  # type: ignore[no-untyped-call]
    return result


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, private: bool) -> Tensor:
        outputs = inputs.relu()
        ctx.save_for_backward(inputs if private else outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.threshold_backward(above, kept.detach(), 0)
        return found, None
