"""Comparison of networks: every probe on every network, and landscapes between networks of a group."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from flatprobe.data import LabelledData, check_data
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.coefficients import segment, simplex
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.interpolation import interpolate
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.risk.endpoints import statistics_of
from flatprobe.studies.comparison import Comparison as Comparison
from flatprobe.studies.comparison import Refusal as Refusal
from flatprobe.studies.probes_at_defaults import CHOICES, DEFAULT, LANDSCAPE, PROBES
from flatprobe.utils.arguments import Checked, one_of
from flatprobe.utils.progress import Report, reporting
from flatprobe.utils.results import Result, check_places, file_stem, save

_CAPPING = ("geometric_margins", "adversarial_accuracy")


@standalone
def compare(
    models: Checked[Mapping[str, nn.Module]],
    data: Checked[LabelledData | Mapping[str, LabelledData]],
    *,
    probes: Checked[str | Sequence[str] | None] = None,
    groups: Checked[Mapping[str, str] | None] = None,
    seed: int = 0,
    progress: bool | None = False,
    out: str | Path | None = None,
) -> Comparison:
    """Results of every chosen probe on every network, at the probes' defaults, with the same directions and noise.

    A landscape is measured per group: over the triangle of its first three networks, or along the line between two.
    Groups of one network have none, and neither have groups whose networks differ in shape or data. BatchNorm
    statistics are recalibrated at each point, since interpolated statistics belong to no network. Statistics of other
    normalization layers are interpolated.

    Args:
        models: networks in eval mode, by name; never changed.
        data: the data of all networks, or data by network, as random labels differ from natural ones.
        probes: one or several of `measurements.CHOICES`. None takes `measurements.DEFAULT`, which apply to every
            classifier at moderate cost.
        groups: network -> group; None puts all into one group, "networks".
        seed: of the directions and the noise.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only.
        out: folder in which each result is saved once measured, as `Comparison.save` does at the end. An error of one
            probe then loses no other result.

    Returns:
        `Comparison`.

    Raises:
        FileExistsError: if `out` holds files of other programs in place of the records.
        OSError: if `out` cannot be written.
        TypeError: for networks or groups without names, or data that are not `LabelledData`.
        ValueError: for no models, an unknown probe, or a network without data or group.
        ValueError: for a name that no file can have.
    """
    chosen = (probes,) if isinstance(probes, str) or callable(probes) else tuple(DEFAULT if probes is None else probes)
    for probe in chosen:
        one_of("probe", probe, CHOICES)
    named, own, group = _check(models, data, groups)
    if out is not None:
        check_places(out, {probe: group.values() if probe == LANDSCAPE else named for probe in chosen})
    with reporting(count_steps(chosen, group), progress) as step:
        return measure_each(named, own, chosen, group, seed, step, out)


def _check(
    models: object, data: object, groups: object
) -> tuple[dict[str, nn.Module], dict[str, LabelledData], dict[str, str]]:
    """The networks, their data and their groups by name.

    Raises:
        TypeError: for networks or groups without names, or data that are not `LabelledData`.
        ValueError: for no networks, or a network without data or group.
    """
    if not isinstance(models, Mapping):
        names = [f"model_{k}" for k in range(len(models) if isinstance(models, Sequence) else 1)]
        msg = (
            f"models must be a dictionary from names to networks, got a {type(models).__name__}. Give "
            f"{{{', '.join(f'{name!r}: ...' for name in names)}}}"
        )
        raise TypeError(msg)
    if groups is not None and not isinstance(groups, Mapping):
        msg = f"groups must be a dictionary from the networks' names to their groups, or None, got {groups!r}"
        raise TypeError(msg)
    if not models:
        msg = "models must hold at least one network, got none"
        raise ValueError(msg)
    own = dict(data) if isinstance(data, Mapping) else dict.fromkeys(models, check_data(data))
    group = dict.fromkeys(models, "networks") if groups is None else dict(groups)
    for name in models:
        if name not in own or name not in group:
            msg = f"the network {name!r} must have data and a group, got data {list(own)} and groups {list(group)}"
            raise ValueError(msg)
    return dict(models), own, {name: group[name] for name in models}


def count_steps(probes: Sequence[str], groups: Mapping[str, str]) -> int:
    """Number of steps that `measure_each` announces: one per network, or per group for the landscapes."""
    return sum(len(set(groups.values()) if probe == LANDSCAPE else groups) for probe in probes)


def measure_each(
    models: Mapping[str, nn.Module],
    data: Mapping[str, LabelledData],
    probes: Sequence[str],
    groups: Mapping[str, str],
    seed: int,
    step: Report,
    out: str | Path | None = None,
) -> Comparison:
    """The comparison with checked arguments; each step is announced.

    Raises:
        ValueError: if nothing could be measured.
    """
    results: dict[str, dict[str, Result]] = {}
    try:
        for probe in probes:
            lands = probe == LANDSCAPE
            each = _landscapes(models, data, groups, step) if lands else _each(probe, models, data, seed, step)
            for name, result in each:
                results.setdefault(probe, {})[name] = result
                changed = {probe: result} | (_cap(results, name) if probe in _CAPPING else {})
                for measurement, own in changed.items():
                    results[measurement][name] = own
                    if out is not None:
                        _save(own, out, measurement, name)
    except BaseException as error:  # KeyboardInterrupt too
        if out is not None:
            error.add_note(f"{sum(map(len, results.values()))} records were measured before, and are kept in {out}")
        raise
    if not results:
        msg = (
            f"{', '.join(probes)} must have something to measure, got none. Landscapes need a group of two networks of "
            "one shape on the same data"
        )
        raise ValueError(msg)
    return Comparison(results=results, groups=dict(groups))


def _cap(results: Mapping[str, Mapping[str, Result]], name: str) -> dict[str, Result]:
    """The accuracy capped by the network's margins, which may hold nearer adversarial points; empty without both."""
    margins, accuracy = (results.get(probe, {}).get(name) for probe in _CAPPING)
    if isinstance(margins, GeometricMargins) and isinstance(accuracy, AdversarialAccuracy):
        return {"adversarial_accuracy": accuracy.capped(margins)}
    return {}


def _save(result: Result, folder: str | Path, measurement: str, name: str) -> None:
    save(result, Path(folder) / measurement / f"{file_stem(name)}.parquet")


def _each(
    probe: str, models: Mapping[str, nn.Module], data: Mapping[str, LabelledData], seed: int, step: Report
) -> Iterator[tuple[str, Result]]:
    for name, model in models.items():
        step(f"{probe} of {name}")
        yield name, PROBES[probe](model, data[name], seed)


def _landscapes(
    models: Mapping[str, nn.Module], data: Mapping[str, LabelledData], groups: Mapping[str, str], step: Report
) -> Iterator[tuple[str, Result]]:
    for label in dict.fromkeys(groups.values()):
        step(f"{LANDSCAPE} of {label}")
        names = [name for name in models if groups[name] == label][:3]
        corners = [models[name] for name in names]
        alike = {_shapes(model) for model in corners}, {data[name].fingerprint for name in names}
        if len(corners) < 2 or any(len(kinds) > 1 for kinds in alike):
            continue
        risk = EmpiricalRisk(corners[0], data[names[0]])
        policy: Literal["recalibrate", "interpolate"] | None = "interpolate" if statistics_of(risk) else None
        if risk.network.batch_normalised:
            policy = "recalibrate"
        points = simplex(3) if len(corners) == 3 else segment()
        yield label, interpolate(risk, corners, points, batch_norm=policy)


def _shapes(model: nn.Module) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(value.shape)) for name, value in Network(model).weights.items())
