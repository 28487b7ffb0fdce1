"""Steps, the operations of a network, and their graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One operation on values that depend on the network's input.

    Kinds, with their tensors (float64, on the CPU) and options:

    - `input`;
    - `linear`: weight (out, in), optional bias (out); acts on the last dimension;
    - `convolution`: weight, bias; stride, padding, dilation, groups; zero-padded;
    - `affine`: v -> scale * v + shift per entry, both broadcast against one sample; BatchNorm, normalization;
      `magnitude` bounds the terms that cancel in `shift`, or in the `bias` of a folded layer, for rounding;
    - `activation`: name, and its parameters; acts entry by entry;
    - `max_pool`, `average_pool`: kernel, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override;
    - `adaptive_max_pool`, `adaptive_average_pool`: no options;
    - `mean`, `sum`: count of the averaged or summed entries; `extremum`: the largest or smallest entry over dims,
      keepdim;
    - `add`: factors, one per source; `concatenate`; `larger`: the larger or smaller of two values per entry;
    - `log_softmax`: count of the classes;
    - `rearrange`: moves, repeats or drops entries or pads with zeros (flatten, permute, slice, split, upsampling);
      repeats, the largest number of copies of an entry;
    - `other`: anything else.

    Attributes:
        kind: one of these kinds.
        sources: the indices of the steps whose values the operation takes.
        layer: the name of the module that applies the operation, for messages.
        operation: the name of the operation in torch.
        shape: the shape of the value for one sample.
        tensors: as above.
        options: as above.
        call: values of the sources (leading dimension 2) -> value.
        weights: names of the parameters that the operation takes, and of those behind its constants.
        dtype: the precision of the operation in the network, if it differs from that of the inputs; else None.
    """

    kind: str
    sources: tuple[int, ...]
    layer: str
    operation: str
    shape: tuple[int, ...]
    call: Callable[..., Tensor] = field(repr=False)
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: frozenset[str] = frozenset()
    dtype: torch.dtype | None = None

    def refuse(self, purpose: str) -> NoReturn:
        """Error that names the step.

        Raises:
            ValueError: always.
        """
        where = f"the layer {self.layer!r}" if self.layer else "the network's own forward"
        msg = (
            f"{purpose} is not known for the operation {self.operation} in {where}; expected linear and zero-padded "
            "convolution layers, BatchNorm, entrywise activations, pooling, sums, concatenations and rearrangements"
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class Graph:
    """Steps of a network in order; the value of the last step is the logits.

    Attributes:
        steps: the steps; each takes the values of earlier steps.
        network: the class name of the module, for messages.
    """

    steps: tuple[Step, ...]
    network: str

    def users(self, index: int) -> list[int]:
        """Indices of the steps that take the value of a step."""
        return [place for place, step in enumerate(self.steps) if index in step.sources]

    def run(self, inputs: Tensor) -> Tensor:
        """Logits of two samples, (2, *input shape) in float64, by the steps.

        Raises:
            ValueError: for another number of samples; the trace fixes the number.
        """
        if len(inputs) != 2:
            msg = f"the traced network takes 2 samples at a time, and {len(inputs)} were given"
            raise ValueError(msg)
        logits: Tensor = self.walk({"input": lambda _step, _values: inputs}, lambda step, values: step.call(*values))
        return logits

    def walk(
        self,
        rules: Mapping[str, Callable[[Step, list[Any]], Any]],
        otherwise: Callable[[Step, list[Any]], Any],
    ) -> Any:
        """Evaluation of the steps with other values, by rules per kind.

        Args:
            rules: kind -> function of a step and the values of its sources.
            otherwise: the function for other kinds.

        Returns:
            The value of the last step.
        """
        found: list[Any] = []
        for step in self.steps:
            found.append(rules.get(step.kind, otherwise)(step, [found[source] for source in step.sources]))
        return found[-1]


def broadcast(value: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """A constant without the sample dimension; None if it varies between samples.

    The result has the dimensions of the sample shape, of size 1 along dimensions in which the constant does not vary.
    """
    if value.ndim > len(shape) + 1 or (value.ndim == len(shape) + 1 and value.shape[0] != 1):
        return None
    return value.reshape((1,) * (len(shape) + 1 - value.ndim) + tuple(value.shape))[0]


def to_float64(value: Any) -> Any:
    """A tensor on the CPU, in float64 if it is floating; other objects unchanged."""
    if not isinstance(value, Tensor):
        return value
    dtype = torch.float64 if value.is_floating_point() else value.dtype
    return value.detach().to("cpu", dtype)
