"""Max pooling whose second derivative needs no tensor of zeros, since the places of the maxima are constants."""

from typing import Any

import torch
from torch import Tensor

from flatprobe.graph.operators.geometry import blank


def max_pool(inputs: Tensor, *window: Any) -> Tensor:
    """The maxima over windows, differentiable to any order.

    Args:
        inputs: (samples, channels, height, width), or without samples.
        window: kernel size, stride, padding, dilation and ceil_mode of `torch.nn.functional.max_pool2d`.
    """
    result: Tensor = _Pool.apply(inputs, window)[0]  # type: ignore[no-untyped-call]
    return result


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, window: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        outputs, indices = torch.ops.aten.max_pool2d_with_indices(inputs, *window)
        ctx.mark_non_differentiable(indices)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(indices)
        ctx.shape, ctx.window = inputs.shape, window
        return outputs, indices

    @staticmethod
    def backward(ctx: Any, above: Tensor, _: None) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        like = blank(ctx.shape, indices, above.dtype)
        found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(above, like, *ctx.window, indices)
        return found, None
