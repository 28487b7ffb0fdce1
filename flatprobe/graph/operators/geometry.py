"""Geometry of a convolution: the bilinear map (x, W) -> A(x, W) with its two adjoints, for any weight of its shape."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Spatial input size, weight shape, stride, padding, dilation along each axis, and groups.

    Products take samples first, on the tensors' device and in their dtype. The sizes are not checked here.
    """

    input_size: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps along each axis."""
        return self.weight_shape[2:]

    @property
    def reach(self) -> tuple[int, ...]:
        """d (k - 1): distance between the first and the last tap along each axis."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of the output: floor((n + 2 p - d (k - 1) - 1) / s) + 1 along each axis."""
        axes = zip(self.input_size, self.padding, self.reach, self.stride, strict=True)
        return tuple((n + 2 * p - reach - 1) // s + 1 for n, p, reach, s in axes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(in, *input_size)."""
        return (self.weight_shape[1] * self.groups, *self.input_size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(out, *output_size)."""
        return (self.weight_shape[0], *self.output_size)

    def convolve(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A(x, W), and a bias added."""
        return torch.convolution(inputs, weight, bias, *self._arguments())

    def transpose(self, outputs: Tensor, weight: Tensor) -> Tensor:
        """A^T(y, W): the transposed convolution, shaped like the inputs."""
        inputs = blank((len(outputs), *self.input_shape), outputs)
        found = self._backward(outputs, inputs, weight, (True, False, False))[0]
        assert found is not None
        return found

    def gather(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """G(x, y): the gradient of <y, A(x, W)> with respect to W."""
        found = self._backward(outputs, inputs, blank(self.weight_shape, outputs), (False, True, False))[1]
        assert found is not None
        return found

    def _backward(
        self, outputs: Tensor, inputs: Tensor, weight: Tensor, mask: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        arguments = outputs, inputs, weight, None, *self._arguments(), mask
        found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(*arguments)
        return found

    def _arguments(self) -> tuple[list[int], list[int], list[int], bool, list[int], int]:
        stride, padding, dilation = map(list, (self.stride, self.padding, self.dilation))
        return stride, padding, dilation, False, [0] * len(stride), self.groups


def blank(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An argument of which torch reads only the shape, and the layout, by which it chooses its kernel."""
    last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=layout)
