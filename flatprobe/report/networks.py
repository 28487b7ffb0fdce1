"""Facts of each network for a reviewer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flatprobe.probes.generalization import Generalization
from flatprobe.report.provenance import words
from flatprobe.report.section import Cell, Table
from flatprobe.utils.numbers import MISSING, three
from flatprobe.utils.results import Result

# Facts in the order of the page, with their titles.
_TITLES = {
    "class": "Class",
    "parameters": "Weights",
    "norm": "Norm of the weights",
    "batch_norm": "BatchNorm",
    "dtype": "Arithmetic",
    "device": "Device",
    "samples": "Samples",
    "test_samples": "Test samples",
    "seed": "Seed",
    "data": "Data",
    "fingerprint": "Fingerprint of the data",
    "test_fingerprint": "Fingerprint of the test data",
    "checkpoint_hash": "Hash of the checkpoint",
    "weights_hash": "Hash of the weights",
    "checks_not_made": "Checks not made",
}
_LONG = ("fingerprint", "hash")
_NOTHING: tuple[Any, ...] = (None, [], {})
_SHOWN = 12  # letters of a fingerprint in a table


@dataclass(frozen=True)
class Networks:
    """Facts that all networks share, and a table of the others; fingerprints and hashes apart."""

    shared: tuple[tuple[str, str | tuple[str, ...]], ...]
    table: Table | None
    hashes: tuple[tuple[str, str | tuple[str, ...]], ...] = ()
    hash_table: Table | None = None


def describe(facts: Mapping[str, Mapping[str, Any]]) -> Networks:
    """Facts that all share once, and the others in a row per network."""
    facts = {name: _with_class(own) for name, own in facts.items()}
    names = list(facts)
    known = [fact for fact in _TITLES if any(own.get(fact) not in _NOTHING for own in facts.values())]
    shared = [fact for fact in known if len({words(facts[name].get(fact)) for name in names}) == 1]
    parts: list[Any] = []
    for long in (False, True):
        both = [fact for fact in shared if fact.endswith(_LONG) == long]
        own = [fact for fact in known if fact not in shared and fact.endswith(_LONG) == long]
        rows = tuple((Cell(name), *(_cell(fact, facts[name].get(fact)) for fact in own)) for name in names)
        parts.append(tuple((_TITLES[fact], _value(facts[names[0]][fact])) for fact in both))
        parts.append(Table(("network", *(_TITLES[fact] for fact in own)), rows) if own else None)
    return Networks(*parts)


def _with_class(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with the class inside `fp.Normalised`, and mean and std of the inputs behind the class.

    >>> _with_class({"class": "Normalised", "inner_class": "CNN", "normalised": {"mean": [0.1307], "std": [0.3081]}})
    {'class': 'CNN, inputs normalized by 0.1307 / 0.3081'}
    """
    own = {fact: value for fact, value in facts.items() if fact not in ("inner_class", "normalised")}
    name, numbers = facts.get("inner_class") or facts.get("class"), facts.get("normalised")
    if name and numbers:
        mean, std = (", ".join(f"{value:g}" for value in numbers[part]) for part in ("mean", "std"))
        name = f"{name}, inputs normalized by {mean} / {std}"
    return own | ({"class": name} if name else {})


def _value(value: Any) -> str | tuple[str, ...]:
    return tuple(map(_words, value)) if isinstance(value, list | tuple) else _words(value)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):  # where the data come from; what is not set says nothing
        return words({name: own for name, own in value.items() if own not in (None, "exact")})
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return three(value)
    if isinstance(value, list | tuple):
        return "; ".join(_words(own) for own in value)
    return words(value)


def _cell(fact: str, value: Any) -> Cell:
    if value in _NOTHING:
        return Cell(MISSING)
    text = _words(value)
    if fact.endswith(_LONG) and len(text) > _SHOWN:
        return Cell(f"{text[:_SHOWN]}…", note=text)
    return Cell(text)


def data_names(results: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Names of the data that anything was measured on."""
    found = {}
    for own in results.values():
        for result in own.values():
            data = (result.settings.get("subject") or {}).get("data") or {}
            source = data.get("source")
            if isinstance(source, Mapping) and source.get("name"):
                labels = " with random labels" if "random_labels" in source else ""
                found[f"{source['name']}{labels} ({data.get('samples', 0):,} samples)"] = str(source["name"])
    return list(found)


def near_chance(results: Mapping[str, Mapping[str, Result]], said: Sequence[str]) -> list[str]:
    """A sentence on the networks whose accuracy is not separated from that of a guess, unless it was said before.

    A guess is right in 1 of C cases. Figures of a network that guesses say little about a minimum.
    """
    names: dict[str, None] = {}
    for own in results.values():
        for name, result in own.items():
            data = (result.settings.get("subject") or {}).get("data") or {}
            if isinstance(result, Generalization) and "train_accuracy" in result.summary() and data.get("classes"):
                lower, _ = result.interval("train_accuracy")
                if lower <= 1 / data["classes"] and not any("chance" in words and name in words for words in said):
                    names[name] = None
    if not names:
        return []
    question = "Is this the network for these data, and are its inputs as in training?"
    return [f"{', '.join(names)}: the accuracy is near chance. {question}"]
