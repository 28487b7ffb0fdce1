"""The operations of a network, one step each."""

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
    - `linear`: weight (out, in), bias (out) or none; acts on the last dimension;
    - `convolution`: weight, bias; stride, padding, dilation, groups; zero-padded;
    - `affine`: v -> scale * v + shift entry by entry, both broadcast against one sample; BatchNorm, normalisation;
      `magnitude` bounds the terms that cancel in `shift`, for rounding (that of a layer, in its `bias`, once folded);
    - `activation`: name, and its parameters; acts entry by entry;
    - `max_pool`, `average_pool`: kernel, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override;
      `adaptive_max_pool`, `adaptive_average_pool`: none; `mean`, `sum`: count of the entries averaged or summed;
      `extremum`: the largest or the least entry over dims, keepdim;
    - `add`: factors, one a source; `concatenate`; `larger`: of two values the larger or the smaller, entry by entry;
    - `log_softmax`: count of the classes;
    - `rearrange`: entries moved, repeated, left out or padded with zeros (flatten, permute, slice, split, upsampling);
      repeats, how often the entry that is found most often is found;
    - `other`: anything else.

    Attributes:
        kind: one of these.
        sources: the steps whose values it takes.
        layer: name of the module that it belongs to, for messages.
        operation: torch's name of it.
        shape: of its value for one sample.
        tensors: as above.
        options: as above.
        call: values of the sources (leading dimension 2) -> its value.
        weights: the parameters that it takes, by name, and those that its constants are computed from.
        dtype: in which the network computes it, where it is another precision than its inputs'; else None.
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
        """The error that names this step.

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
    """The steps in order; the last one is the logits.

    Attributes:
        steps: each takes the values of earlier ones.
        network: the module's class, for messages.
    """

    steps: tuple[Step, ...]
    network: str

    def users(self, index: int) -> list[int]:
        """The steps that take the value of a step."""
        return [place for place, step in enumerate(self.steps) if index in step.sources]

    def run(self, inputs: Tensor) -> Tensor:
        """The logits of two samples, (2, *input shape) float64, by the steps: the network itself where all are known.

        Raises:
            ValueError: for another number of samples, which is fixed by the trace.
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
        """Something in place of each value, from that of its sources: by the rule of its kind, else the last one.

        Returns:
            What stands in place of the logits.
        """
        found: list[Any] = []
        for step in self.steps:
            found.append(rules.get(step.kind, otherwise)(step, [found[source] for source in step.sources]))
        return found[-1]


def broadcast(value: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """A constant that meets a value of this sample shape, without the dimension of the samples; None where it has one.

    The result's dimensions are those of the sample, of size 1 where the constant does not vary.
    """
    if value.ndim > len(shape) + 1 or (value.ndim == len(shape) + 1 and value.shape[0] != 1):
        return None
    return value.reshape((1,) * (len(shape) + 1 - value.ndim) + tuple(value.shape))[0]


def doubled(value: Any) -> Any:
    """A floating tensor in float64 on the CPU; anything else as it is (tensors on the CPU)."""
    if not isinstance(value, Tensor):
        return value
    dtype = torch.float64 if value.is_floating_point() else value.dtype
    return value.detach().to("cpu", dtype)
