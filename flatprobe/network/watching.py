"""Observation of the memory that the operations of a pass read and write."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flatprobe.network.storage import storage_of

# The tags of operations that hand values, or the number of values that meet a condition, to Python, which may then
# branch.
_LOOKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_SAFE_CHANNELS = 8
_LAST = 4  # Operations from the end: a view, a cast or a scale may follow a sigmoid.


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Context that sees the operations of torch, without torch's compiler."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True makes torch import its compiler, which takes two seconds.


class Observation(Watching):  # type: ignore[no-untyped-call] # torch's own
    """Context that records the memory that operations read and write.

    Args:
        sources: addresses of the memory of weights and inputs; tensors computed from them are followed.

    Attributes:
        foreign: addresses of memory that an operation reads and that none of them made.
        made: addresses of the memory of the returned tensors.
        written: addresses of the memory that an operation writes to.
        unsafe: True if a convolution must not be differentiated in channels-last layout.
        halves: True if a tensor was computed in half precision, where differences show no digit.
        looks: True if values were handed to Python, so that other inputs may take another branch.
    """

    def __init__(self, sources: Iterable[int | None] = ()) -> None:
        super().__init__()
        self._derived = set(sources)
        self._followed: list[weakref.ref[Tensor]] = []
        self.foreign: set[int | None] = set()
        self.made: set[int | None] = {None}
        self.written: set[int | None] = set()
        self.looks = self.unsafe = self.halves = False

    def __torch_dispatch__(
        self, func: Any, _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = func._schema  # noqa: SLF001 - torch has no public way to ask
        self.looks |= not _LOOKS.isdisjoint(func.tags) and (schema.name != "aten::index" or _has_mask(args[1:]))
        self.unsafe |= schema.name == "aten::convolution" and _unsafe(*args[1:4:2])
        used = {*map(storage_of, tensors_in((*args, *kwargs.values())))}
        self.foreign |= used - self.made
        if schema.is_mutable:
            named = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
            changed = [argument.name for argument in schema.arguments if argument.is_write]
            self.written.update(map(storage_of, tensors_in(named.get(name) for name in changed)))
        call: Callable[..., Any] = func
        result = call(*args, **kwargs)
        returned = list(tensors_in((result,)))
        self.halves |= any(part.is_floating_point() and part.dtype.itemsize == 2 for part in returned)
        addresses = {*map(storage_of, returned)}
        self.made |= addresses - self.foreign
        if self._derived.isdisjoint(used):
            self._derived -= addresses
        else:
            self._derived |= addresses
            self._followed += map(weakref.ref, returned)
        return result

    def remaining(self) -> list[Tensor]:
        """Tensors that were computed from weights or inputs and still exist."""
        return [value for reference in self._followed if (value := reference()) is not None]


def _has_mask(indices: Iterable[Any]) -> bool:
    """True if a mask chooses the entries."""
    return any(part.dtype in {torch.bool, torch.uint8} for part in tensors_in(indices))


def _unsafe(weight: Tensor, stride: Sequence[int]) -> bool:
    """True if the backward pass corrupts the heap in channels-last layout.

    The error concerns strided 1x1 convolutions of few channels on CPUs without AVX-512. It occurs on an AMD EPYC with
    AVX2 alone, and on any CPU with ONEDNN_MAX_CPU_ISA=AVX2. Other kernels, strides and layouts, and double or half
    precision, are safe.
    """
    return weight.ndim == 4 and max(stride) > 1 and weight[0, 0].numel() == 1 and weight.shape[1] < _SAFE_CHANNELS


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors among values and in the lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def leaves_of(outputs: Tensor) -> list[Tensor]:
    """Leaf tensors that receive a gradient of the outputs."""
    pending, seen, found = [outputs.grad_fn], set(), []
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        pending += [following for following, _ in node.next_functions]
    return found


def ends_in_sigmoid(outputs: Tensor) -> bool:
    """True if a sigmoid is among the last operations."""
    node = outputs.grad_fn
    for _ in range(_LAST):
        if node is None:
            return False
        if "sigmoid" in node.name().lower():
            return True
        # One logit z is joined to a constant, (0, z), which has no function.
        node = next((following for following, _ in node.next_functions if following is not None), None)
    return False
