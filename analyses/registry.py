"""Registry: every published item, from the modules of the sources and from `analyses.open`."""

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from types import ModuleType

import analyses
from analyses.open import OPEN
from analyses.reproduction import Reproduction, Unavailable

Item = Reproduction | Unavailable
SOURCES = ("T3", "S17", "N20", "O20", "B19")  # the order of the list


@cache
def registry() -> dict[str, Item]:
    """Every item by its id, in the order of the sources and then of the ids."""
    found = collect(_modules())
    found |= {item.id: item for item in OPEN if item.id not in found}
    return dict(sorted(found.items(), key=lambda pair: _order(pair[0])))


def collect(modules: Iterable[ModuleType]) -> dict[str, Item]:
    """The items of some modules by id: their `REPRODUCTION`, `REPRODUCTIONS` and `UNAVAILABLE`.

    Raises:
        ValueError: if two items have one id.
    """
    found: dict[str, Item] = {}
    for module in modules:
        for item in _items(module):
            if item.id in found:
                msg = f"ids must differ, got {item.id!r} twice, again in {module.__name__}"
                raise ValueError(msg)
            found[item.id] = item
    return found


def find(ids: Sequence[str]) -> list[Reproduction]:
    """The reproductions of some ids, in the given order.

    Raises:
        ValueError: for an id that is not in the registry, or that is open or unavailable.
    """
    items = registry()
    unknown = [name for name in ids if name not in items]
    if unknown:
        msg = f"the ids must be those of `python -m analyses list`, got {', '.join(unknown)}"
        raise ValueError(msg)
    chosen = []
    for item in (items[name] for name in ids):
        if isinstance(item, Unavailable):
            msg = f"{item.id} is {item.state}: {item.reason}"
            raise ValueError(msg)
        chosen.append(item)
    return chosen


def _items(module: ModuleType) -> Iterator[Item]:
    if hasattr(module, "REPRODUCTION"):
        yield module.REPRODUCTION
    yield from getattr(module, "REPRODUCTIONS", ())
    yield from getattr(module, "UNAVAILABLE", ())


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(analyses.__path__, "analyses."):
        if found.name.count(".") > 1 or found.ispkg:  # the framework's own modules hold no items
            yield importlib.import_module(found.name)


def _order(name: str) -> tuple[int, list[tuple[int, str]]]:
    source, _, rest = name.partition("-")
    place = SOURCES.index(source) if source in SOURCES else len(SOURCES)
    parts = re.findall(r"(\d+)|(\D+)", rest)
    return place, [(int(number), "") if number else (-1, word) for number, word in parts]
