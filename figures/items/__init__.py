"""One function per published item: (table of its record, metadata) -> figure, in the paper's arrangement."""

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache

import pandas as pd
from matplotlib.figure import Figure

Draw = Callable[[pd.DataFrame, dict], Figure]


@cache
def figures() -> dict[str, Draw]:
    """The functions by id, from `FIGURES` of the files of this folder.

    Raises:
        ValueError: if two files draw one id.
    """
    found: dict[str, Draw] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        own = importlib.import_module(module.name).FIGURES
        twice = found.keys() & own.keys()
        if twice:
            msg = f"each id must be drawn by one file, got {', '.join(sorted(twice))} again in {module.name}"
            raise ValueError(msg)
        found |= own
    return found
