"""Results in any form as a comparison."""

import os
from collections.abc import Mapping
from dataclasses import replace

from flatprobe.probes.interpolation import Interpolation
from flatprobe.studies.comparison import Comparison
from flatprobe.studies.facts import facts_of
from flatprobe.utils.results import Result


def gather(results: object, groups: Mapping[str, str] | None = None) -> Comparison:
    """The comparison that results of any form make.

    Args:
        results: a comparison; measurement -> network -> result; network -> result; one result; or a folder of records.
        groups: network -> group, in place of the comparison's own.

    Raises:
        TypeError: for anything but results.
        ValueError: for no results, or a network without a group.
    """
    found = _gather(results)
    if not found.results and not found.refusals:
        msg = "there are no records to report; expected at least one measurement: measurement -> network -> result"
        raise ValueError(msg)
    names = dict.fromkeys(
        name for own in found.results.values() for name, result in own.items() if not isinstance(result, Interpolation)
    )
    own = found.groups if groups is None else groups
    for name in names:
        if own and name not in own:
            msg = (
                f"groups must hold a group for every network, got none for {name!r}. Give one, or groups=None for none"
            )
            raise ValueError(msg)
    facts = {
        name: found.facts.get(name) or facts_of(name, found.results)
        for name in {**dict.fromkeys(found.groups), **names}
    }
    return replace(found, groups=dict(own), facts=facts)


def _gather(results: object) -> Comparison:
    if isinstance(results, Comparison):
        return results
    if isinstance(results, str | os.PathLike):
        return Comparison.load(os.fspath(results))
    if isinstance(results, Result):
        results = {"the network": results}
    if not isinstance(results, Mapping):
        msg = (
            "results must be a comparison, a result, a mapping or a folder of records, got one of type "
            f"{type(results).__name__}. Give what fp.compare or a probe returned"
        )
        raise TypeError(msg)
    found: dict[str, dict[str, Result]] = {}
    for name, own in results.items():
        if isinstance(own, Result):
            found.setdefault(str(own.settings.get("probe") or type(own).__name__), {})[str(name)] = own
        elif isinstance(own, Mapping) and all(isinstance(result, Result) for result in own.values()):
            found[str(name)] = {str(network): result for network, result in own.items()}
        else:
            msg = (
                f"results[{name!r}] must be a result or a mapping from networks to results, got one of type "
                f"{type(own).__name__}. Give measurement -> network -> result"
            )
            raise TypeError(msg)
    return Comparison(results=found, groups={})


def drawn_groups(groups: Mapping[str, str]) -> Mapping[str, str] | None:
    """The groups that are worth a colour: several, of which one has several networks.

    >>> drawn_groups({"a": "one", "b": "one"}), drawn_groups({"a": "a", "b": "b"})
    (None, None)
    """
    return groups if 1 < len({*groups.values()}) < len(groups) else None
