"""Sweep described by a JSON file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flatprobe.studies.experiment import Experiment
from flatprobe.studies.measurement import Measurement
from flatprobe.utils.tensor_files import read_json

_FORM = (
    '{"base": {"network": {...}, "data": {...}, "stages": [{...}]}, "grid": {"seeds.order": [0, 1]}, '
    '"measurements": [{"probe": "flatness_radius"}]}'
)


def read_sweep(path: str | Path) -> tuple[list[Experiment], list[Measurement]]:
    """Experiments and measurements of a file.

    Args:
        path: a JSON object with `base` (an experiment) and optionally `grid` (as in `Experiment.vary`; names that vary
            together are one entry, separated by commas), or with `experiments` (a list), and `measurements`: a list of
            objects with the fields of `Measurement`. A joint measurement has `over`, the dotted names in which its
            networks differ, such as `["seeds.network", "seeds.order"]`, in place of `experiments`.

    Returns:
        The arguments of `sweep`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of another form.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"there is no file {path}. Write one such as {_FORM}"
        raise FileNotFoundError(msg)
    content = read_json(path, f"expected an object such as {_FORM}")
    unknown = sorted(content.keys() - {"base", "grid", "experiments", "measurements"})
    if unknown or ("base" in content) == ("experiments" in content):
        msg = f"{path} must hold base or experiments, and measurements, got {', '.join(content)}; such as {_FORM}"
        raise ValueError(msg)
    if "base" in content:
        grid = {_names(name): values for name, values in dict(content.get("grid", {})).items()}
        experiments = Experiment.from_json(content["base"]).vary(grid)
    else:
        if not isinstance(content["experiments"], list):
            msg = f"experiments in {path} must be a list, got {content['experiments']!r}"
            raise ValueError(msg)
        experiments = [Experiment.from_json(described) for described in content["experiments"]]
    return experiments, [
        part for entry in content.get("measurements", []) for part in _measurements(entry, experiments)
    ]


def group(experiments: Sequence[Experiment], over: Sequence[str]) -> list[list[Experiment]]:
    """Groups of experiments that agree in all settings but those of `over`, in the order of their first members.

    >>> base = Experiment(network={"name": "mlp"}, data={"name": "digits"}, stages=[{"epochs": 1}])
    >>> both = base.vary({"network.scale": (1, 10), "seeds.network": (0, 1, 2)})
    >>> [len(part) for part in group(both, ["seeds.network"])]
    [3, 3]
    """
    found: dict[tuple[tuple[str, object], ...], list[Experiment]] = {}
    for experiment in experiments:
        fixed = tuple((name, value) for name, value in experiment.flat().items() if name not in over)
        found.setdefault(fixed, []).append(experiment)
    return list(found.values())


def _names(name: str) -> str | tuple[str, ...]:
    parts = tuple(part.strip() for part in name.split(","))
    return parts if len(parts) > 1 else name


def _measurements(described: Any, experiments: Sequence[Experiment]) -> list[Measurement]:
    """The measurement of an entry, or one per group of a joint one.

    Raises:
        ValueError: for an entry of another form.
    """
    if not isinstance(described, Mapping) or "probe" not in described:
        msg = f'an entry of measurements must be an object such as {{"probe": "flatness_radius"}}, got {described!r}'
        raise ValueError(msg)
    arguments = dict(described)
    over = arguments.pop("over", None)
    known = {"probe", "on", "stage", "arguments", "samples", "name"}
    unknown = sorted(arguments.keys() - known)
    if unknown:
        fields = ", ".join(sorted(known))
        msg = f"an entry of measurements must have fields among {fields} and over, got {', '.join(unknown)}"
        raise ValueError(msg)
    if over is not None and not (isinstance(over, list) and {*over} <= experiments[0].flat().keys()):
        names = ", ".join(experiments[0].flat())
        msg = f"over must be a list of dotted names among {names}, got {over!r}"
        raise ValueError(msg)
    if over is None:
        return [Measurement(**arguments)]
    return [Measurement(**arguments, experiments=members) for members in group(experiments, over)]
