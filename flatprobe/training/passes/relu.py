"""ReLU whose derivative torch differentiates without a tensor of zeros: 1[z > 0] is a constant."""

from typing import Any

import torch
from torch import Tensor


def rectified(inputs: Tensor) -> Tensor:
    """max(0, z), with torch's derivative 0 at z = 0."""
    result: Tensor = _Rectify.apply(inputs)  # type: ignore[no-untyped-call]
    return result


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        outputs = inputs.relu()
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.threshold_backward(above, outputs.detach(), 0)
        return found
