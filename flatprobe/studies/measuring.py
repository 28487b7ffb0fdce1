"""The work of a comparison: each measurement once, kept where it is there, refused where it fails."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.studies.chosen import FORMAT, Chosen, unknown
from flatprobe.studies.comparison import Comparison, Refusal, in_order
from flatprobe.studies.facts import KEY, checks_not_made, data_facts, network_facts
from flatprobe.studies.identity import loss_identity, network_identity
from flatprobe.studies.landscapes import corners_of, landscape, not_alike
from flatprobe.studies.parallel import run_parallel
from flatprobe.studies.probes_by_name import LANDSCAPE
from flatprobe.studies.records import record_path, save_record
from flatprobe.utils.progress import Report, reporting
from flatprobe.utils.results import Result, load
from flatprobe.utils.threads import thread_count

_CAPPING = ("geometric_margins", "adversarial_accuracy")

Place = tuple[int, str]  # position of the measurement, and name of the network or group
Outcome = Result | Refusal
Held = tuple[dict[str, dict[str, Result]], list[Refusal]]


@dataclass
class Work:
    """The networks, their data, and what is to be measured.

    Attributes:
        models: networks by name.
        data: their samples.
        test: their test samples, where there are any.
        chosen: the measurements.
        groups: network -> group.
        seed: of directions and noise.
        loss: of the probes that take one; None for the cross-entropy.
        asked: True where a landscape was chosen by name, so that its absence is a refusal.
        facts: network -> facts; networks without facts cannot be measured.
        refused: networks that cannot be measured at all.
    """

    models: dict[str, nn.Module]
    data: dict[str, LabelledData]
    test: dict[str, LabelledData]
    chosen: list[Chosen]
    groups: dict[str, str]
    seed: int
    loss: Any = None
    asked: bool = False
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    _identities: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, model in self.models.items():
            try:
                own = network_facts(model) | data_facts(self.data[name], self.test.get(name), self.seed)
                self.facts[name] = own
            except Exception as error:  # noqa: BLE001 - a user's module may raise anything
                self.refused.append(Refusal("", name, reason_of(error)))

    def places(self) -> list[Place]:
        """Places of all measurements, measurement by measurement."""
        found: list[Place] = []
        for position, chosen in enumerate(self.chosen):
            names = self._labels() if chosen.probe == LANDSCAPE else list(self.facts)
            found += [(position, name) for name in names]
        return found

    def _labels(self) -> list[str]:
        """The groups that have a landscape; all groups where landscapes were chosen by name."""
        labels = list(dict.fromkeys(self.groups[name] for name in self.facts))
        return labels if self.asked else [label for label in labels if not not_alike(self.corners(label), self.data)]

    def corners(self, label: str) -> dict[str, nn.Module]:
        """The networks of a group's landscape."""
        return {name: self.models[name] for name in corners_of(list(self.facts), self.groups, label)}

    def key(self, place: Place) -> Any:
        """Key of the record of a place."""
        chosen, name = self.chosen[place[0]], place[1]
        if chosen.probe != LANDSCAPE:
            found = chosen.key(self.seed, self.loss, self.identity(name), self.data[name], self.test.get(name))
            return found | {"loss": found["loss"] and [found["loss"], self._loss(name)]}
        corners = list(self.corners(name))
        networks = [[own, self.identity(own)] for own in corners]
        found = chosen.key(self.seed, self.loss, {}, self.data[corners[0]], None)
        loss = found["loss"] and [found["loss"], self._loss(corners[0])]
        data = [self.data[own].fingerprint for own in corners]
        return {"probe": LANDSCAPE, "networks": networks, "data": data, "loss": loss, "format": FORMAT}

    def identity(self, name: str) -> dict[str, Any]:
        """Identity of the network of a name, computed at the first use."""
        if name not in self._identities:
            function = network_identity(self.models[name], self.data[name], self.loss)
            own = {key: self.facts[name].get(key) for key in ("weights_hash", "class", "dtype", "architecture")}
            self._identities[name] = own | {"function": function or unknown()}
        return self._identities[name]

    def _loss(self, name: str) -> Any:
        """The values of a user-defined loss."""
        if not callable(self.loss):
            return None
        return loss_identity(self.loss, self.models[name], self.data[name]) or unknown()

    def measure(self, place: Place) -> Outcome:
        """The result of a place, with its key in the settings; or its refusal, for whatever error but Ctrl-C."""
        chosen, name = self.chosen[place[0]], place[1]
        try:
            if chosen.probe == LANDSCAPE:
                result: Result = landscape(self.corners(name), self.data, self.loss or "cross_entropy")
            else:
                result = chosen.measure(self.models[name], self.data[name], self.test.get(name), self.seed, self.loss)
        except Exception as error:  # noqa: BLE001 - a user's module or probe may raise anything
            return Refusal(chosen.name, name, reason_of(error))
        return replace(result, settings={**result.settings, KEY: json.loads(json.dumps(self.key(place), default=str))})


def measure_all(
    work: Work,
    *,
    progress: bool | None = False,
    out: str | Path | None = None,
    again: bool = False,
    workers: int = 1,
    threads: int | None = None,
    along: Mapping[str, float] | None = None,
    along_name: str | None = None,
) -> Comparison:
    """The comparison with checked arguments; each measurement is announced, and saved once made."""
    places = work.places()
    held: Held = ({}, list(work.refused))

    def finish() -> Comparison:
        order = [chosen.name for chosen in work.chosen if chosen.name in held[0]]
        results = {name: in_order(held[0][name], [*work.facts, *work.groups.values()]) for name in order}
        facts = {name: own | {"checks_not_made": checks_not_made(name, results)} for name, own in work.facts.items()}
        comparison = Comparison(
            results=results, groups=dict(work.groups), along=None if along is None else dict(along),
            along_name=along_name, refusals=tuple(_joined(held[1], work.chosen)), facts=facts,
        )  # fmt: skip
        if out is not None:
            comparison.save_state(out)
        return comparison

    left = []
    for place in places:
        result = None if again else _kept(work, place, out)
        if result is None:
            left.append(place)
        else:
            held[0].setdefault(work.chosen[place[0]].name, {})[place[1]] = result
    try:
        with reporting(len(places), progress, done=len(places) - len(left)) as step:
            for place, outcome in _outcomes(work, left, step, workers, threads):
                _hold(work, place, outcome, out, held)
    except BaseException as error:  # KeyboardInterrupt too
        if out is not None:
            finish()
            error.add_note(f"{sum(map(len, held[0].values()))} records were measured before, and are kept in {out}")
        raise
    return finish()


def _outcomes(
    work: Work, places: Sequence[Place], step: Report, workers: int, threads: int | None
) -> Iterator[tuple[Place, Outcome]]:
    """The places and their outcomes, in this process or in several; the step is announced."""
    if workers == 1:
        with nullcontext() if threads is None else thread_count(threads):
            for place in places:
                step(f"{work.chosen[place[0]].name} of {place[1]}")
                yield place, work.measure(place)
        return
    for place, outcome in run_parallel(work, places, workers, threads):
        name = work.chosen[place[0]].name
        step(f"{name} of {place[1]}")
        died = isinstance(outcome, BaseException)
        yield place, Refusal(name, place[1], f"its process died ({outcome})") if died else outcome


def _kept(work: Work, place: Place, out: str | Path | None) -> Result | None:
    """The record of the place, if it is there."""
    if out is None:
        return None
    try:
        result: Result = load(record_path(out, work.chosen[place[0]].name, place[1]))
    except (FileNotFoundError, ValueError):  # not there, damaged, or of another version
        return None
    return result if result.settings.get(KEY) == json.loads(json.dumps(work.key(place), default=str)) else None


def _hold(work: Work, place: Place, outcome: Outcome, out: str | Path | None, held: Held) -> None:
    """Take an outcome in, and save it."""
    if isinstance(outcome, Refusal):
        held[1].append(outcome)
        if out is not None and _kept(work, place, out) is None:  # what is there is of another network or other data
            record_path(out, outcome.measurement, outcome.network).unlink(missing_ok=True)
        return
    chosen, name = work.chosen[place[0]], place[1]
    held[0].setdefault(chosen.name, {})[name] = outcome
    changed = {chosen.name: outcome} | (_cap(held[0], name) if chosen.name in _CAPPING else {})
    for measurement, result in changed.items():
        held[0][measurement][name] = result
        if out is not None:
            save_record(result, out, measurement, name)


def _cap(results: Mapping[str, Mapping[str, Result]], name: str) -> dict[str, Result]:
    """The accuracy capped by the network's margins, which may hold nearer adversarial points.

    Empty without both, or where the margins are of another norm, box or other samples.
    """
    margins, accuracy = (results.get(probe, {}).get(name) for probe in _CAPPING)
    if isinstance(margins, GeometricMargins) and isinstance(accuracy, AdversarialAccuracy):
        with suppress(ValueError):  # margins of another norm, box or number of samples say nothing of this accuracy
            return {"adversarial_accuracy": accuracy.capped(margins)}
    return {}


def _joined(refusals: Sequence[Refusal], chosen: Sequence[Chosen]) -> list[Refusal]:
    """The refusals, with one in place of those of a network that refuses all measurements for one reason."""
    names = {own.name for own in chosen if own.probe != LANDSCAPE}
    own = [refusal for refusal in refusals if refusal.measurement in names]
    reasons: dict[str, list[str]] = {}
    for refusal in own:
        reasons.setdefault(refusal.network, []).append(refusal.reason)
    alike = {name: each[0] for name, each in reasons.items() if len(each) == len(names) > 1 and len({*each}) == 1}
    return [
        *(Refusal("", name, reason) for name, reason in alike.items()),
        *(refusal for refusal in refusals if refusal not in own or refusal.network not in alike),
    ]


def reason_of(error: BaseException) -> str:
    """The message of an error, with its class where that is not one of input errors."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if isinstance(error, ValueError | TypeError | MemoryError) else f"{type(error).__name__}: {words}"
