"""Refused measurements, those of one reason together."""

from collections.abc import Callable, Sequence

from flatprobe.studies.comparison import Refusal


def by_reason(refusals: Sequence[Refusal], title: Callable[[str], str] = str) -> list[tuple[str, str]]:
    """What was refused and why; measurements and networks of the same reason are one entry.

    Args:
        refusals: the refusals.
        title: name of a measurement -> its words.

    Returns:
        (measurements and networks, reason) each.

    >>> by_reason([Refusal("a", "n", "no classes"), Refusal("b", "n", "no classes"), Refusal("", "m", "corrupt")])
    [('a, b of n', 'no classes'), ('m', 'corrupt')]
    """
    reasons: dict[str, dict[str, list[str]]] = {}
    for refusal in refusals:
        own = reasons.setdefault(refusal.reason, {}).setdefault(refusal.network, [])
        own += [title(refusal.measurement)] if refusal.measurement else []
    found = []
    for reason, networks in reasons.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for network, measurements in networks.items():
            alike.setdefault(tuple(measurements), []).append(network)
        parts = (" of ".join(filter(None, (", ".join(own), ", ".join(names)))) for own, names in alike.items())
        found.append(("; ".join(parts), reason))
    return found
