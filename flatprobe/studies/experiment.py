"""Experiment: a network, its data, its training stages and its seeds, as plain JSON."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.studies.subjects import build_network, check_data, check_network, data_of
from flatprobe.training import train
from flatprobe.utils.arguments import Checked, as_json, whole

SEEDS = ("data", "network", "order")
_PLACED = ("out", "resume", "save_every", "seed", "threads", "progress")  # arguments of `train` that a sweep gives
_NAME = re.compile(r"\w[\w +-]{0,99}")  # of a stage's folder
_DIGITS = 16  # hexadecimal digits of a key; two of a million experiments share one with probability 3e-8


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training, described completely by JSON values.

    The measurements are no part of it: a network is trained once, and every figure that needs it reads it. The versions
    of the code are recorded beside the trained network, not in the key.

    Attributes:
        network: `name` and arguments of a builder in `fp.models`, or of a function `package.module:function` that takes
            `input_shape`, `classes` and `seed` by name. Four further entries change the network that it returns:
            `unit_rows` (True, or layer names) for weight normalization, `scale` for `fp.models.scaled`, and `mean` with
            `std` for `fp.Normalised`.
        data: `name` and the arguments `crop`, `image_column` and `label_column` of `fp.load_data`, or a function
            `package.module:function` that takes `split` and the other entries by name and returns `LabelledData`.
            `samples` (None: all) are drawn from the first `pool` training samples (None: all): by `draw`, which is
            `"uniform"` (default), `"balanced"` (the same number per class) or `"first"`. `validation` samples after the
            pool are held out. `random_labels` is the fraction of training labels that are replaced.
        stages: the arguments of `fp.train` per stage, in order, with an optional `name`; each stage continues with the
            network of the stage before. `validation` is `"test"` or `"validation"`, for the history.
        seeds: `data` (which samples, which random labels), `network` (initial weights) and `order` (order and noise of
            the training); 0 where left out.

    Raises:
        TypeError: for values that JSON does not have.
        ValueError: for unknown entries, naming the known ones.

    >>> experiment = Experiment(
    ...     network={"name": "mlp", "widths": [16]},
    ...     data={"name": "digits", "samples": 100},
    ...     stages=[{"until": "interpolation", "learning_rate": 0.05}],
    ... )
    >>> [other.seeds["order"] for other in experiment.vary({"seeds.order": (0, 1)})]
    [0, 1]
    """

    network: Checked[Mapping[str, Any]]
    data: Checked[Mapping[str, Any]]
    stages: Checked[Sequence[Mapping[str, Any]]]
    seeds: Checked[Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("network", "data", "stages", "seeds"):
            object.__setattr__(self, name, plain_json(name, getattr(self, name)))
        check_network(self.network)
        check_data(self.data)
        _check_stages(self.stages)
        unknown = self.seeds.keys() - {*SEEDS}
        if unknown:
            msg = f"seeds must be among {', '.join(SEEDS)}, got {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        whole(**self.seeds)
        object.__setattr__(self, "seeds", dict.fromkeys(SEEDS, 0) | dict(self.seeds))

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hash_json(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The four entries as JSON values."""
        return {name: getattr(self, name) for name in ("network", "data", "stages", "seeds")}

    @classmethod
    def from_json(cls, values: Checked[Mapping[str, Any]]) -> "Experiment":
        """The inverse of `as_json`.

        Raises:
            ValueError: for missing or unknown entries.
        """
        needed, known = {"network", "data", "stages"}, {"network", "data", "stages", "seeds"}
        given: object = values
        if not isinstance(given, Mapping):
            msg = f"an experiment must be an object with network, data and stages, got {values!r}"
            raise ValueError(msg)
        if not needed <= values.keys() <= known:
            msg = f"an experiment must have the entries {', '.join(sorted(known))}, got {', '.join(map(str, values))}"
            raise ValueError(msg)
        return cls(**values)

    def vary(self, grid: Checked[Mapping[str | tuple[str, ...], Iterable[Any]]]) -> "list[Experiment]":
        """The experiments of a grid, the last entry fastest.

        Args:
            grid: values by dotted name, such as `{"data.samples": (1000, 3000), "stages.0.learning_rate": (0.1,)}`. A
                tuple of names takes tuples of values, which vary together.

        Returns:
            One experiment per combination.

        Raises:
            TypeError: for values that are no list.
            ValueError: for a name that leads nowhere.
        """
        whole_grid: object = grid
        if not isinstance(whole_grid, Mapping):
            msg = f"grid must be a dictionary from dotted names to lists of values, got {grid!r}"
            raise TypeError(msg)
        given: Mapping[Any, object] = grid
        for name, values in given.items():
            if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
                msg = f"the values of {name!r} must be a list, got {values!r}"
                raise TypeError(msg)
        grid = {name: list(values) for name, values in grid.items()}
        for name, entries in grid.items():
            wrong = [entry for entry in entries if isinstance(name, tuple) and not _has_length(entry, len(name))]
            if wrong:
                msg = f"the values of {name!r} must be lists of {len(name)} values, got {wrong[0]!r}"
                raise TypeError(msg)
        found = []
        for values in itertools.product(*grid.values()):
            described = json.loads(json.dumps(self.as_json()))
            for name, value in zip(grid, values, strict=True):
                pairs = zip(name, value, strict=True) if isinstance(name, tuple) else ((name, value),)
                for single, entry in pairs:
                    _replace(described, single, entry)
            found.append(type(self).from_json(described))
        return found

    def flat(self) -> dict[str, Any]:
        """The settings by dotted name, for the columns of a table."""
        return dict(_leaves("", self.as_json()))

    def stage_names(self) -> list[str]:
        """The names of the stages; the place of a stage without one."""
        return [str(stage.get("name", place)) for place, stage in enumerate(self.stages)]

    def build(self) -> nn.Module:
        """The network with its initial weights."""
        data = self.load("train").as_classes()
        return build_network(self.network, data.input_shape, data.classes or 0, self.seeds["network"])

    def load(self, on: str = "train") -> LabelledData:
        """The training, validation or test data.

        Args:
            on: `"train"`, with the experiment's draw and labels; `"validation"`: the samples after the pool; or another
                split of the data set, as it is.

        Returns:
            The data.
        """
        return data_of(self.data, on, self.seeds["data"])


def plain_json(name: str, value: object) -> Any:
    """The value in JSON's types, where a tuple is a list and a NumPy scalar a number.

    Raises:
        TypeError: for a value that JSON does not have, such as NaN.
    """
    try:
        return json.loads(json.dumps(value, default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        msg = (
            f"{name} must hold numbers, words, lists and dictionaries, got {error}. Name functions package.module:name"
        )
        raise TypeError(msg) from error


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else as_json(value)


def hash_json(value: object) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON: sorted names, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _check_stages(stages: Sequence[Mapping[str, Any]]) -> None:
    if not stages or not all(isinstance(stage, dict) for stage in stages):
        msg = f"stages must be a list of at least one dictionary of arguments of fp.train, got {stages!r}"
        raise ValueError(msg)
    placed = [name for stage in stages for name in _PLACED if name in stage]
    if placed:
        msg = f"stages must be without {', '.join(placed)}, which the sweep and the seeds give"
        raise ValueError(msg)
    known = {*signature(train).parameters, "name"} - {"network", "data", *_PLACED}
    unknown = [name for stage in stages for name in stage if name not in known]
    if unknown:
        msg = f"stages must hold arguments of fp.train, {', '.join(sorted(known))}, got {', '.join(unknown)}"
        raise ValueError(msg)
    names = [str(stage.get("name", place)) for place, stage in enumerate(stages)]
    if len({*names}) < len(names) or not all(_NAME.fullmatch(name) for name in names) or "initial" in names:
        msg = (
            f"stages must have distinct names of letters, digits, spaces and -_+ that can name a folder, and none may "
            f"be 'initial', got {names}"
        )
        raise ValueError(msg)


def _has_length(entry: object, length: int) -> bool:
    return isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) == length


def _replace(described: Any, name: str, value: object) -> None:
    *path, last = name.split(".")
    place = described
    try:
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[int(last) if isinstance(place, list) else last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        msg = f"{name!r} must be a dotted name within network, data, stages or seeds, such as 'stages.0.epochs'"
        raise ValueError(msg) from error


def _leaves(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for part, inner in value.items():
            yield from _leaves(f"{name}.{part}" if name else part, inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for place, inner in enumerate(value):
            yield from _leaves(f"{name}.{place}", inner)
    else:
        yield name, json.dumps(value) if isinstance(value, list) else value
