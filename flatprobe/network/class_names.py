"""Class names of a network, compared with those of the data."""

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from flatprobe.network.modules import unwrap


def class_names_of(module: nn.Module) -> tuple[list[str], str] | None:
    """Class names in the order of the logits, and the attribute with them.

    Two attributes are read: `class_names`, which `train` and `load_checkpoint` set, and the `id2label` of the
    configuration (transformers). In a wrapper such as `Normalised`, the network inside is read.

    Args:
        module: any network.

    Returns:
        The names and the attribute; None for a network without class names.
    """
    inner, place = unwrap(module), ""
    while True:
        own = getattr(inner, "class_names", None)
        if isinstance(own, list | tuple) and own and all(isinstance(name, str) for name in own):
            return [*own], f"{place}class_names"
        named = getattr(getattr(inner, "config", None), "id2label", None)
        if isinstance(named, Mapping) and named and set(named) == set(range(len(named))):
            return [str(named[k]) for k in range(len(named))], f"{place}config.id2label.values()"
        following = getattr(inner, "network", None)
        if not isinstance(following, nn.Module):
            return None
        inner, place = following, f"{place}network."


def set_class_names(module: nn.Module, names: object) -> None:
    """Store class names as `class_names`, unless this attribute has another use."""
    if isinstance(names, list) and isinstance(getattr(module, "class_names", []), list):
        module.class_names = [*names]  # type: ignore[assignment] # a module takes attributes of any kind


def find_misplaced(own: Sequence[str], others: Sequence[str]) -> str | None:
    """The first name that occurs once in both lists, at different places, if any."""
    shared = _once(own) & _once(others)
    places = {name: place for place, name in enumerate(others)}
    return next((name for place, name in enumerate(own) if name in shared and places[name] != place), None)


def _once(names: Sequence[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count == 1}
