"""Natural order of names, and lists of names in sentences."""

import re
from collections.abc import Sequence

_LONGEST = 1000  # digits, since Python converts no more than some thousands


def natural(name: object) -> list[tuple[int, int, str]]:
    """Sort key of a name or path, with numbers by their value.

    >>> sorted(["epoch-10", "epoch-2", "²"], key=natural)
    ['epoch-2', 'epoch-10', '²']
    """
    parts = re.findall(r"\d+|\D+", str(name))
    return [(0, int(own), "") if own.isdecimal() and len(own) < _LONGEST else (1, 0, own) for own in parts]


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and the number of the others.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], 2)
    ('a, b, c', 'a, b and 1 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
