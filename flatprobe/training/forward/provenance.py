"""Which tensors of a forward pass are made of weights and constants alone, and of which weight."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

# Made of numbers; what else has no tensor among its arguments may have read the inputs.
_CONSTANTS = frozenset(("arange", "zeros", "ones", "full", "eye", "linspace"))


class Origins:
    """The module's parameters and buffers, and all that is computed of them without the inputs.

    A tensor of unknown history counts as one that depends on the inputs, and so does one that was written to.

    Args:
        module: whose pass is followed; the tensors that are computed are kept until it has ended.
    """

    def __init__(self, module: nn.Module) -> None:
        # With the tensor, whose id is its own while it lives, and its version, which views and bases share.
        self._known: dict[int, tuple[Tensor, int, str]] = {}
        for value in module.buffers():
            self._mark(value, "")
        for name, value in module.named_parameters():
            self._mark(value, name)

    def of(self, value: Tensor) -> str | None:
        """The parameter that it comes from, `""` for a constant; None where it may depend on the inputs."""
        for own in (value, value._base):  # noqa: SLF001 - a view that was made before the pass
            if own is not None and (found := self._known.get(id(own))) is not None:
                return found[2] if found[1] == own._version else None  # noqa: SLF001
        return None

    def common(self, function: str, arguments: Iterable[Any]) -> str | None:
        """What a function's result comes from: its first parameter; None where an argument may depend on the inputs."""
        names = []
        for value in tensors(arguments):
            name = self.of(value)
            if name is None:
                return None
            names.append(name)
        if not names and function not in _CONSTANTS:
            return None
        return next(filter(None, names), "")

    def mark(self, values: Iterable[Any], name: str) -> None:
        """Note that these results come from that parameter; an argument that was written to keeps its own."""
        for value in tensors(values):
            known = self._known.get(id(value))
            self._mark(value, name if known is None else known[2])

    def _mark(self, value: Tensor, name: str) -> None:
        self._known[id(value)] = value, value._version, name  # noqa: SLF001


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among the arguments or results of a function, in lists and tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
