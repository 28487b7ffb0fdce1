"""Memory of penalties and constraints between steps, as named tensors for a run folder."""

from collections.abc import Mapping

from torch import Tensor


def memory_of(parts: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors in each part's dictionary `memory`, where it has one, by `<part>/<name>`."""
    return {
        f"{part}/{name}": value for part, own in parts.items() for name, value in getattr(own, "memory", {}).items()
    }


def restore_memory(parts: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Give the parts the memory that `memory_of` returned; other names are ignored."""
    for name, value in tensors.items():
        part, found, word = name.partition("/")
        if found and part in parts:
            parts[part].memory[word] = value.clone()  # type: ignore[attr-defined]
