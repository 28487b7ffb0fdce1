"""Sentences about networks, each once with the names of all networks that it is about."""

import re
from collections.abc import Iterable, Sequence

from flatprobe.utils.natural import listed


def grouped(said: Iterable[tuple[str, str]], kind: str = "networks") -> list[str]:
    """One sentence for all names with the same sentence, in the order of their first ones.

    Sentences are the same if they differ in the name alone, as paths do. The sentence of the first name is shown.

    Args:
        said: pairs of a name and a sentence.
        kind: the noun for several names.

    >>> grouped([("a", "a.pt is broken"), ("b", "b.pt is broken"), ("c", "c.pt is empty")], "checkpoints")
    ['2 checkpoints (a, b): a.pt is broken', 'c: c.pt is empty']
    """
    found: dict[str, dict[str, str]] = {}
    for name, sentence in said:
        found.setdefault(without(sentence, name), {}).setdefault(name, sentence)
    return [f"{caption([*names], kind)}: {next(iter(names.values()))}" for names in found.values()]


def without(sentence: str, name: str) -> str:
    """The sentence with a mark in place of the name in paths and quotes; a name such as "a" is also a word."""
    own = re.escape(name)
    return re.sub(rf"(?<=[/\\'\"]){own}(?!\w)|(?<!\w){own}(?=[./\\,:'\"])", "\0", sentence)


def caption(names: Sequence[str], kind: str = "networks") -> str:
    """The name of one network, or the number and the first names of several.

    >>> caption([f"epoch-{k}" for k in range(1, 7)], "checkpoints")
    '6 checkpoints (epoch-1, epoch-2, epoch-3, epoch-4 and 2 more)'
    """
    if len(names) == 1:
        return names[0]
    return f"{len(names)} {kind} ({listed(names)})"
