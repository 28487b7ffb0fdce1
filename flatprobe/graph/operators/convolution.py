"""Zero-padded convolutions as linear maps between finite images."""

import math
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from flatprobe.graph.operators.geometry import Geometry


class Convolution(Geometry):
    """y[o, i] = sum_{c, t} w[o, c, t] x[c, s i - p + d t], x zero outside its image; 1-D, 2-D or 3-D, without bias.

    Only zero padding, the same on both sides of an axis, is a map of this kind: a layer with another padding mode has
    no `Convolution`. The bias does not change the operator.

    Args:
        weight: (out, in / groups, *kernel), any real floating type on any device; all work is float64 on the CPU.
        input_size: spatial size of the input, without batch and channels; its length is the number of axes.
        stride: s, one number per axis.
        padding: p, zeros added on either side, one number per axis.
        dilation: d, distance between the taps, one number per axis.
        groups: independent blocks of channels.

    Raises:
        ValueError: for a weight that is not finite, or sizes that make no convolution.

    Source: the formula is that of `torch.nn.Conv2d`.

    >>> Convolution(torch.ones(1, 1, 3, 3), (16, 16), (2, 2), (1, 1), (1, 1), 1).output_size
    (8, 8)
    """

    weight: Tensor
    __eq__, __hash__ = object.__eq__, object.__hash__  # two weights may share one geometry

    def __init__(
        self,
        weight: Tensor,
        input_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> None:
        super().__init__(input_size, tuple(weight.shape), stride, padding, dilation, groups)
        object.__setattr__(self, "weight", weight)
        _check_weight(weight, len(input_size))
        for name, least in (("input_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            _check_axes(name, getattr(self, name), least, len(input_size))
        if groups < 1 or len(weight) % groups:
            msg = (
                f"groups is {groups} and the weight has {len(weight)} output channels; expected a number of groups "
                "that divides them"
            )
            raise ValueError(msg)
        if min(self.output_size) < 1:
            msg = (
                f"the output size is {self.output_size} for an input of {input_size} and a kernel of "
                f"{self.kernel_size}; expected at least 1 per axis: is input_size the layer's real input size?"
            )
            raise ValueError(msg)

    @cached_property
    def kernel(self) -> Tensor:
        """The weight in float64 on the CPU, detached; taps that always meet the padding are zero.

        These taps do not act, but the symbols on a torus would count them.
        """
        kernel: Tensor = self.weight.detach().to("cpu", torch.float64)
        for axis in range(len(self.input_size)):
            idle = [t for t, (i, _) in enumerate(self.meetings(axis)) if not len(i)]
            if idle:
                kernel = kernel.index_fill(2 + axis, torch.tensor(idle, device="cpu"), 0.0)
        return kernel

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of one group's matrix."""
        return math.prod(self.output_shape) // self.groups, math.prod(self.input_shape) // self.groups

    def apply(self, x: Tensor) -> Tensor:
        """A x for x of shape (in, *input_size), or a batch of such, in float64."""
        whole = x.to("cpu", torch.float64).reshape(-1, *self.input_shape)
        return self.convolve(whole, self.kernel).view(*x.shape[: -len(self.input_shape)], *self.output_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y for y of shape (out, *output_size), or a batch of such, in float64."""
        whole = y.to("cpu", torch.float64).reshape(-1, *self.output_shape)
        return self.transpose(whole, self.kernel).view(*y.shape[: -len(self.output_shape)], *self.input_shape)

    def blocks(self) -> Tensor:
        """The matrices of the groups, (groups, rows, columns), float64; entries are copied, so they are exact."""
        G, out, size = self.groups, self.output_size, self.input_size
        per_group = self.kernel.reshape(G, -1, self.kernel.shape[1], math.prod(self.kernel_size))
        result = torch.zeros(
            (G, per_group.shape[1], math.prod(out), per_group.shape[2], math.prod(size)),
            dtype=torch.float64,
            device="cpu",
        )
        meetings = [self.meetings(axis) for axis in range(len(size))]
        for index, tap in enumerate(product(*map(range, self.kernel_size))):
            pairs = [meetings[axis][t] for axis, t in enumerate(tap)]
            rows = _flat([i for i, _ in pairs], out)
            columns = _flat([j for _, j in pairs], size)
            result[:, :, rows, :, columns] = per_group[..., index]
        return result.reshape(G, *self.block_shape)

    def dense(self) -> Tensor:
        """The whole matrix, (out * outputs, in * inputs), float64: block diagonal in the groups."""
        rows, columns = self.block_shape
        matrix = torch.zeros(self.groups, rows, self.groups, columns, dtype=torch.float64, device="cpu")
        own = torch.arange(self.groups, device="cpu")
        matrix[own, :, own] = self.blocks()
        return matrix.view(self.groups * rows, self.groups * columns)

    def meetings(self, axis: int) -> list[tuple[Tensor, Tensor]]:
        """For each tap t along the axis: the outputs i whose tap is in the image, and the inputs s i - p + d t."""
        i = torch.arange(self.output_size[axis], device="cpu")
        taps = range(self.kernel_size[axis])
        inputs = [self.stride[axis] * i - self.padding[axis] + self.dilation[axis] * t for t in taps]
        inside = [(j >= 0) & (j < self.input_size[axis]) for j in inputs]
        return [(i[mask], j[mask]) for j, mask in zip(inputs, inside, strict=True)]


def _flat(coordinates: list[Tensor], size: tuple[int, ...]) -> Tensor:
    """Positions in a flattened image of the grid spanned by the coordinates of the axes."""
    flat = torch.zeros(1, dtype=torch.int64, device="cpu")
    for own, length in zip(coordinates, size, strict=True):
        flat = (flat[:, None] * length + own).flatten()
    return flat


def _check_weight(weight: Tensor, axes: int) -> None:
    if axes not in (1, 2, 3) or weight.ndim != axes + 2 or not weight.numel():
        msg = (
            f"the weight has shape {tuple(weight.shape)} for an input of {axes} axes; expected (out, in / groups, "
            "*kernel) with as many kernel sizes as the input has axes, 1, 2 or 3"
        )
        raise ValueError(msg)
    if not weight.is_floating_point():
        msg = f"the weight is {weight.dtype}; expected a real floating type: weight.to(torch.float64)"
        raise ValueError(msg)
    if not bool(weight.isfinite().all()):
        index = tuple((~weight.isfinite()).nonzero()[0].tolist())
        msg = f"the weight is {float(weight[index])} at {index}; expected finite numbers: did the training diverge?"
        raise ValueError(msg)


def _check_axes(name: str, values: object, least: int, axes: int) -> None:
    plain = isinstance(values, tuple) and all(isinstance(value, int) and value >= least for value in values)
    if not plain or len(values) != axes:  # type: ignore[arg-type]  # `plain` implies a tuple
        msg = (
            f"{name} is {values!r}; expected a tuple of {axes} whole numbers of at least {least}, one per axis "
            "(zero padding, the same on both sides)"
        )
        raise ValueError(msg)
