"""Refused measurements, those of one reason together."""

from collections.abc import Callable, Sequence

from flatprobe.studies.comparison import Refusal
from flatprobe.utils.grouping import without


def by_reason(
    refusals: Sequence[Refusal],
    title: Callable[[str], str] = str,
    names: Callable[[Sequence[str]], str] = ", ".join,
) -> list[tuple[str, str]]:
    """Refusals by reason; measurements and networks of the same reason, but for names in paths, are one entry.

    Args:
        refusals: the refusals.
        title: name of a measurement -> its words.
        names: names of networks -> their words.

    Returns:
        (measurements and networks, reason) each.

    >>> by_reason([Refusal("a", "n", "no classes"), Refusal("b", "n", "no classes"), Refusal("", "m", "corrupt")])
    [('a, b of n', 'no classes'), ('m', 'corrupt')]
    """
    reasons: dict[str, dict[str, list[str]]] = {}
    shown: dict[str, str] = {}  # the first reason with its path
    for refusal in refusals:
        reason = without(refusal.reason, refusal.network)
        shown.setdefault(reason, refusal.reason)
        own = reasons.setdefault(reason, {}).setdefault(refusal.network, [])
        own += [title(refusal.measurement)] if refusal.measurement else []
    found = []
    for reason, by_network in reasons.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for network, measurements in by_network.items():
            alike.setdefault(tuple(measurements), []).append(network)
        parts = (" of ".join(filter(None, (", ".join(own), names(few)))) for own, few in alike.items())
        found.append(("; ".join(parts), shown[reason]))
    return found
