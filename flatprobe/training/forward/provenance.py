"""Provenance of tensors in a forward pass: those computed from weights and constants alone."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

# Constructors of constants. Other functions without tensor arguments may have read the inputs.
_CONSTANTS = frozenset(("arange", "zeros", "ones", "full", "eye", "linspace"))


class Origins:
    """The module's parameters and buffers, and the tensors computed from them without the inputs.

    A tensor of unknown origin, or one that was written to, counts as dependent on the inputs.

    Args:
        layers: all modules of the network by name; their computed tensors are kept until the pass ends.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        # The tensor keeps its id from reuse; views and bases share the version.
        self._known: dict[int, tuple[Tensor, int, str]] = {}
        for prefix, layer in layers.items():
            # `named_parameters` and `named_buffers` would walk over the modules again, in every pass.
            for buffer in layer._buffers.values():  # noqa: SLF001
                if buffer is not None:
                    self._mark(buffer, "")
            for name, parameter in layer._parameters.items():  # noqa: SLF001
                if parameter is not None and id(parameter) not in self._known:
                    self._mark(parameter, f"{prefix}.{name}" if prefix else name)

    def of(self, value: Tensor) -> str | None:
        """The name of the parameter behind a tensor, `""` for a constant; None if it may depend on the inputs."""
        for own in (value, value._base):  # noqa: SLF001 - a view may be older than the pass
            if own is not None and (found := self._known.get(id(own))) is not None:
                return found[2] if found[1] == own._version else None  # noqa: SLF001
        return None

    def common(self, function: str, arguments: Iterable[Any]) -> str | None:
        """The first parameter among a function's arguments; None if an argument may depend on the inputs."""
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
        """Record the parameter behind these results; an argument that was written to keeps its parameter."""
        for value in tensors(values):
            known = self._known.get(id(value))
            self._mark(value, name if known is None else known[2])

    def _mark(self, value: Tensor, name: str) -> None:
        self._known[id(value)] = value, value._version, name  # noqa: SLF001


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among the arguments or results of a function, also in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
