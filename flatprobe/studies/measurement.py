"""Measurement of a sweep: a probe, its data, the training stage, and its arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.studies.experiment import Experiment, hash_json, plain_json
from flatprobe.studies.probes_by_name import JOINT, PROBES, arguments_of
from flatprobe.studies.subjects import is_function, name_of, resolve
from flatprobe.utils.arguments import Checked, at_least, one_of

INITIAL = "initial"  # the stage before all training
HISTORY = "history"  # the training's rows per epoch, which no probe measures


def _arguments(probe: str) -> set[str]:
    return set() if probe == HISTORY else arguments_of(probe)


@dataclass(frozen=True)
class Measurement:
    """One measurement of every experiment of a sweep, or a joint one of several experiments.

    Its record is named by the hash of all fields but `name`, so that the same measurement is made once.

    Attributes:
        probe: the name of a probe, such as `"flatness_radius"`; `"risk"` for loss and error; `"history"` for the
            training's rows per epoch; `"interpolate"` (joint) with `steps` of the grid and the arguments of
            `fp.interpolate`. Or a function, or its name `package.module:function`, that takes (model, data,
            **arguments) and returns a Result, a table of pandas, or a dictionary of numbers; a joint function takes a
            list of models. A changed function does not change the hash: give it an argument such as `version`.
        on: `"train"`, `"test"` or another split, or `"validation"`.
        stage: the name or place of a training stage; `"initial"`: the network before training; None: the last stage.
        arguments: of the probe, JSON values.
        samples: the first so many samples of `on`; None: all.
        name: of the rows in the table; the probe's name by default.
        experiments: of a joint measurement, which reads the data of the first; None for one of each experiment.

    Raises:
        TypeError: for arguments that JSON does not have, and a probe that is neither a name nor a function.
        ValueError: for an unknown probe, or a joint probe without experiments.

    >>> Measurement("flatness_radius", arguments={"directions": 5}).name
    'flatness_radius'
    """

    probe: Checked[str | Callable[..., Any]]
    on: str = "train"
    stage: str | int | None = None
    arguments: Checked[Mapping[str, Any]] = field(default_factory=dict)
    samples: Checked[int | None] = None
    name: Checked[str | None] = None
    experiments: Checked[Sequence[Experiment] | None] = None

    def __post_init__(self) -> None:
        probe: object = self.probe
        if not isinstance(probe, str) and not callable(probe):
            msg = f"probe must be the name of a probe or a function, got {self.probe!r}"
            raise TypeError(msg)
        for name, kind, own in (("arguments", Mapping, self.arguments), ("name", str, self.name or "")):
            if not isinstance(own, kind):
                msg = f"{name} of a measurement must be a {kind.__name__.lower()}, got {own!r}"
                raise TypeError(msg)
        object.__setattr__(self, "probe", name_of(self.probe))
        object.__setattr__(self, "arguments", plain_json("arguments", self.arguments))
        object.__setattr__(self, "stage", None if self.stage is None else str(self.stage))
        assert isinstance(self.probe, str)
        joint = self.experiments is not None
        if is_function(self.probe):
            resolve(self.probe)
        else:
            one_of("probe", self.probe, JOINT if joint else (*PROBES, HISTORY, *JOINT))
        unknown = set() if is_function(self.probe) else self.arguments.keys() - _arguments(self.probe)
        if unknown:
            known = ", ".join(sorted(_arguments(self.probe))) or "none"
            msg = f"arguments of {self.probe} must be among {known}, got {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        if self.probe in JOINT and not joint:
            msg = f"the probe {self.probe!r} must have experiments, the networks that it joins. Give experiments=[...]"
            raise ValueError(msg)
        if (self.probe, self.stage) == (HISTORY, INITIAL):
            msg = f"stage must be one that trains for the history, got {INITIAL!r}"
            raise ValueError(msg)
        at_least(1, samples=self.samples)
        if self.name is None:
            object.__setattr__(self, "name", self.probe.rpartition(":")[2])
        if joint:
            object.__setattr__(self, "experiments", tuple(self.experiments or ()))
            at_least(2, experiments=len(self.experiments or ()))

    def as_json(self, experiments: Sequence[Experiment]) -> dict[str, Any]:
        """The description of the record, with the stage by its name.

        Raises:
            ValueError: for a stage that an experiment does not have.
        """
        stages = [self.stage_of(experiment) for experiment in experiments]
        return {
            "probe": self.probe,
            "on": self.on,
            "stage": stages[0] if len({*stages}) == 1 else stages,
            "arguments": dict(self.arguments),
            "samples": self.samples,
        }

    def stage_of(self, experiment: Experiment) -> str:
        """The name of the stage in the experiment.

        Raises:
            ValueError: for a stage that it does not have.
        """
        names = experiment.stage_names()
        if self.stage is None:
            return names[-1]
        places = [str(place) for place in range(len(names))]
        if self.stage in places and self.stage not in names:
            return names[int(self.stage)]
        one_of("stage", self.stage, (INITIAL, *names))
        return str(self.stage)

    def key(self, experiments: Sequence[Experiment]) -> str:
        """The hash that names the record of these experiments."""
        return hash_json([self.as_json(experiments), [experiment.key for experiment in experiments]])

    def __call__(self, models: Sequence[nn.Module], data: LabelledData) -> Any:
        """The probe's result."""
        assert isinstance(self.probe, str)
        if self.samples is not None:
            data = data.head(min(self.samples, len(data)))
        function = resolve(self.probe) if is_function(self.probe) else (PROBES | JOINT)[self.probe]
        return function(list(models) if self.experiments is not None else models[0], data, **self.arguments)
