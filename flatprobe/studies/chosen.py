"""Chosen measurements of a comparison: a probe with its arguments, its samples, and the key of its record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from typing import Any
from uuid import uuid4

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.functional.user_loss import as_loss, describe_loss
from flatprobe.probes.generalization import TEST, TRAIN
from flatprobe.studies.identity import probe_identity
from flatprobe.studies.measurement import Measurement
from flatprobe.studies.probes_by_name import CHOICES, JOINT, NAMED, PROBES, arguments_of, compared
from flatprobe.studies.subjects import is_function, resolve
from flatprobe.utils.arguments import Checked, meant, one_of
from flatprobe.utils.results import Result

FORMAT = 2  # of the records' keys; a change of a probe that changes its numbers raises it

GENERALIZATION = "generalization"


@dataclass(frozen=True)
class Chosen:
    """One measurement of every network.

    Attributes:
        name: name of its records.
        probe: name of the probe, or of the function.
        arguments: given arguments of the probe.
        function: (model, data, **arguments) -> result.
        on: "train" or "test", the samples.
        samples: the first so many of them; None for all.
    """

    name: str
    probe: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    function: Callable[..., Any] | None = None
    on: str = TRAIN
    samples: int | None = None

    @cached_property
    def accepted(self) -> set[str]:
        """The arguments of the probe that a comparison gives to all: `seed` and `loss`."""
        if self.function is not None:
            return {*signature(self.function).parameters} & {"seed", "loss"}
        return arguments_of(self.probe) & {"seed", "loss"} if self.probe in PROBES else {"seed", "loss"}

    def key(
        self, seed: int, loss: Any, network: Mapping[str, Any], data: LabelledData, test: LabelledData | None
    ) -> dict[str, Any]:
        """Key of a record, as JSON; records of equal keys hold the same numbers.

        A function without a file, as of a notebook, may have changed unseen: no two of its keys are equal.
        """
        source = test if self.on == TEST else data
        other = None if test is None or self.probe != GENERALIZATION else test.fingerprint
        function = None if self.function is None else probe_identity(self.function)
        return {
            "probe": self.probe,
            "function": unknown() if self.function is not None and function is None else function,
            "arguments": dict(self.arguments),
            "seed": seed if "seed" in self.accepted else None,
            "loss": describe_loss(as_loss(loss)) if loss is not None and "loss" in self.accepted else None,
            "network": dict(network),
            "on": self.on,
            "data": None if source is None else source.fingerprint,
            "length": None if source is None else len(source),
            "samples": self.samples,
            "test": other,
            "format": FORMAT,
        }

    def measure(self, model: nn.Module, data: LabelledData, test: LabelledData | None, seed: int, loss: Any) -> Result:
        """The result of the probe.

        Raises:
            TypeError: if a function returns something other than a result.
            ValueError: if the test samples are to be measured and there are none.
        """
        data = self.samples_of(data, test)
        common = {"seed": seed, "loss": loss if loss is not None else "cross_entropy"}
        given = {name: value for name, value in common.items() if name in self.accepted} | dict(self.arguments)
        if self.probe == GENERALIZATION and self.function is None:
            given["test"] = test
        result: object = (self.function or PROBES[self.probe])(model, data, **given)
        if not isinstance(result, Result):
            msg = f"the probe {self.name!r} must return a flatprobe Result, got a {type(result).__name__}"
            raise TypeError(msg)
        return result

    def samples_of(self, data: LabelledData, test: LabelledData | None) -> LabelledData:
        """The samples that are measured.

        Raises:
            ValueError: if the test samples are to be measured and there are none.
        """
        if self.on == TEST:
            if test is None:
                msg = f"{self.name} is to be measured on the test samples, and there are none. Give test data"
                raise ValueError(msg)
            data = test
        return data if self.samples is None else data.head(min(self.samples, len(data)))


def unknown() -> str:
    """The part of a key that cannot be known, and equals no other: what it belongs to is measured again."""
    return f"unknown {uuid4().hex}"


Given = str | Measurement | Callable[..., Any]


def choose(probes: Checked[Given | Iterable[Given]]) -> list[Chosen]:
    """The measurements, each by the name of a probe or measurement, an `fp.Measurement`, or a function.

    Raises:
        TypeError: for an entry of another type.
        ValueError: for an unknown name, two measurements of one name, or a measurement of a training stage.
    """
    entries = [probes] if isinstance(probes, str | Measurement) or callable(probes) else list(probes)
    check_names([entry for entry in entries if isinstance(entry, str)])
    chosen = [_chosen(entry) for entry in entries]
    if not chosen:
        msg = "probes must hold at least one measurement, got none"
        raise ValueError(msg)
    names = [own.name for own in chosen]
    if len({*names}) < len(names):
        chosen = [replace(own, name=_named(own)) if names.count(own.name) > 1 else own for own in chosen]
    names = [own.name for own in chosen]
    if len({*names}) < len(names):
        msg = f"measurements must have distinct names, got {', '.join(names)}. Give each once, or give name=..."
        raise ValueError(msg)
    return chosen


def check_names(names: Iterable[str]) -> None:
    """Check the names of probes, all at once.

    Raises:
        ValueError: for unknown names, with the closest known ones.
    """
    unknown = [name for name in dict.fromkeys(names) if name not in CHOICES]
    if unknown:
        hints = "".join(dict.fromkeys(meant(name, CHOICES) for name in unknown))
        msg = f"probe must be one of {', '.join(map(repr, CHOICES))}, got {', '.join(map(repr, unknown))}{hints}"
        raise ValueError(msg)


def _chosen(entry: object) -> Chosen:
    if isinstance(entry, str):
        probe, arguments = NAMED.get(entry, (entry, {}))
        return Chosen(entry, probe, compared(probe, arguments))
    if isinstance(entry, Measurement):
        return _of_measurement(entry)
    if not callable(entry):
        msg = (
            f"probes must be names, fp.Measurement(probe, arguments=...) or functions (model, data) -> Result, got a "
            f"{type(entry).__name__}"
        )
        raise TypeError(msg)
    name = getattr(entry, "__name__", type(entry).__name__)
    return Chosen(name, name, function=entry)


def _of_measurement(given: Measurement) -> Chosen:
    assert isinstance(given.probe, str)
    assert given.name is not None
    if given.stage is not None or given.experiments is not None or given.probe in JOINT:
        msg = f"the measurement {given.name!r} must have no stage and no experiments, which belong to fp.sweep"
        raise ValueError(msg)
    one_of("on", given.on, (TRAIN, TEST))
    if is_function(given.probe):
        return Chosen(given.name, given.probe, given.arguments, resolve(given.probe), given.on, given.samples)
    one_of("probe", given.probe, [probe for probe in PROBES if probe != "risk"])
    return Chosen(given.name, given.probe, compared(given.probe, given.arguments), None, given.on, given.samples)


def _named(own: Chosen) -> str:
    """The name with the arguments, such as "flatness_radius (law=adaptive)"."""
    words = [f"{key}={value}" for key, value in own.arguments.items()] + ([own.on] if own.on != TRAIN else [])
    return f"{own.name} ({', '.join(words)})" if words else own.name
