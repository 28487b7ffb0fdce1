"""One pass of a network watched operation by operation: which memory it reads and writes, and what it looks at."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flatprobe.network.storage import storage_of

# Torch's marks of operations that hand a tensor's values to Python, or how many of them meet a condition: it may then
# do one thing or another.
_LOOKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_SAFE_CHANNELS = 8
_LAST = 4  # operations: a view, a cast, a scale may follow


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Notes what the operations in the block read and write.

    Attributes:
        foreign: addresses of the memory that they read and that none of them has made.
        made: addresses of the memory of what they returned.
        written: addresses of the memory that they wrote to.
        unsafe: whether a convolution is among them that must not be differentiated in channels-last layout.
        halves: whether something was computed in half precision, of which differences show no digit.
        looks: whether a tensor's values were handed to Python, so that other inputs may take another way.

    Args:
        sources: addresses of the memory of weights and inputs, of which is followed what is computed from them.
    """

    def __init__(self, sources: Iterable[int | None] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._derived = set(sources)
        self._followed: list[weakref.ref[Tensor]] = []
        self.foreign: set[int | None] = set()
        self.made: set[int | None] = {None}
        self.written: set[int | None] = set()
        self.looks = self.unsafe = self.halves = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler for it, two seconds of work

    def __torch_dispatch__(
        self, func: Any, _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = func._schema  # noqa: SLF001 - torch has no public way to ask
        self.looks |= not _LOOKS.isdisjoint(func.tags) and (schema.name != "aten::index" or _masked(args[1:]))
        self.unsafe |= schema.name == "aten::convolution" and _unsafe(*args[1:4:2])
        used = {*map(storage_of, _tensors((*args, *kwargs.values())))}
        self.foreign |= used - self.made
        if schema.is_mutable:
            named = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
            changed = [argument.name for argument in schema.arguments if argument.is_write]
            self.written.update(map(storage_of, _tensors(named.get(name) for name in changed)))
        call: Callable[..., Any] = func
        result = call(*args, **kwargs)
        returned = list(_tensors((result,)))
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
        """What was computed from weights or inputs, and is still held by someone."""
        return [value for reference in self._followed if (value := reference()) is not None]


def _masked(indices: Iterable[Any]) -> bool:
    """Whether the entries are chosen by a condition, and not by numbers, of which there are as many as were given."""
    return any(part.dtype in {torch.bool, torch.uint8} for part in _tensors(indices))


def _unsafe(weight: Tensor, stride: Sequence[int]) -> bool:
    """Whether torch 2.13's oneDNN corrupts the heap in this convolution's backward pass in channels-last layout.

    Strided 1x1 convolutions of few channels, on CPUs without AVX-512: seen on an AMD EPYC with AVX2 alone, and anywhere
    with ONEDNN_MAX_CPU_ISA=AVX2; not with other kernels, strides or layouts, nor in double or half precision.
    """
    return weight.ndim == 4 and max(stride) > 1 and weight[0, 0].numel() == 1 and weight.shape[1] < _SAFE_CHANNELS


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def leaves_of(outputs: Tensor) -> list[Tensor]:
    """The tensors that a gradient of the outputs arrives at."""
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
    """Whether the last few operations, followed through their first input, hold a sigmoid."""
    node = outputs.grad_fn
    for _ in range(_LAST):
        if node is None:
            return False
        if "sigmoid" in node.name().lower():
            return True
        node = node.next_functions[0][0] if node.next_functions else None
    return False
