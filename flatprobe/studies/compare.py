"""Comparison of networks: every measurement of every network, and landscapes between networks of a group."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.data import LabelledData, check_data
from flatprobe.studies.chosen import Given, choose
from flatprobe.studies.comparison import Comparison as Comparison
from flatprobe.studies.comparison import Refusal as Refusal
from flatprobe.studies.measuring import Work, measure_all
from flatprobe.studies.probes_by_name import LANDSCAPE
from flatprobe.utils.arguments import Checked, Whole, at_least
from flatprobe.utils.results import check_places

# Measurements for the question which network is flat, has large margins and is robust, at some hundreds of passes over
# the data: each figure that depends on the scale of the weights or of the logits beside one that does not. The radius
# has the adaptive radius, the functional margin has the geometric one; the Jacobian norms and the weights' norm tell
# how the two are related.
DEFAULT = (
    "generalization",
    "flatness_radius",
    "flatness_radius_adaptive",
    "random_slice",
    "hessian_eigenvalues",
    "weight_norms",
    "functional_margins",
    "geometric_margins",
    "jacobian_norms",
    "gaussian_robustness",
    LANDSCAPE,
)
# Those of them that classify the inputs, which have no meaning for a regression.
NEED_CLASSES = ("functional_margins", "geometric_margins", "jacobian_norms", "gaussian_robustness")


class RefusalWarning(UserWarning):
    """Warning of measurements that were refused."""


def compare(
    models: Checked[Mapping[str, nn.Module]],
    data: Checked[LabelledData | Mapping[str, LabelledData]],
    *,
    test: Checked[LabelledData | Mapping[str, LabelledData] | None] = None,
    probes: Checked[Given | Sequence[Given] | None] = None,
    groups: Checked[Mapping[str, str] | None] = None,
    along: Checked[Mapping[str, float] | None] = None,
    along_name: str | None = None,
    loss: Any = None,
    seed: int = 0,
    progress: bool | None = False,
    out: str | Path | None = None,
    again: bool = False,
    workers: Whole = 1,
    threads: Whole | None = None,
) -> Comparison:
    """Results of every chosen measurement of every network, with the same directions and noise for all.

    A measurement that a network refuses, by whatever error, becomes an entry of `refusals` with its reason and one
    warning at the end; all others are made. With `out`, each result is saved once measured, and the same call goes on
    where it was interrupted: a record is read in place of a measurement where probe, arguments, seed, loss, network
    and measured samples are the same. Other records of that name are replaced. A network is told by its weights, class
    and layers, the code and public plain attributes of its parts, and its outputs on the first 8 samples, to the last
    digit. A loss function is told by its values on these and by its code. A probe function is told by the files and
    global values that it reads, objects by their type alone. One without a file, as in a notebook, is measured anew.

    A landscape is measured per group: over the triangle of its first three networks, or along the line between two.
    Groups of one network have none, and neither have groups whose networks differ in shape or data.

    Args:
        models: networks in eval mode, by name; never changed.
        data: the data of all networks, or data by network, as random labels differ from natural ones.
        test: samples that had no part in training, for all networks or by network: the test figures of
            `fp.generalization`, and of measurements with `on="test"`. Samples equal to `data` are left out with a
            warning.
        probes: one or several names of `fp.studies.probes_by_name.CHOICES`, `fp.Measurement(probe, arguments=...)`, or
            functions (model, data) -> `fp.Result`, which may also take `seed` and `loss`. None takes
            `fp.studies.compare.DEFAULT`, with `along` except the landscape, and without class labels except the probes
            of the inputs, with a warning.
        groups: network -> group; None puts all into one group, "networks".
        along: network -> place on an axis, such as the epoch, the width or the learning rate. Networks at different
            places are no replicates, and are never averaged.
        along_name: name of the axis.
        loss: loss per sample of the probes that take one, as in `EmpiricalRisk`; None for the cross-entropy.
        seed: of the directions and the noise.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only.
        out: folder of the records, `out/measurement/network.parquet`, and of `comparison.json`.
        again: True measures what is already in `out` anew.
        workers: number of processes. More than one need networks and data that can be pickled, and the guard `if
            __name__ == "__main__":` in a script. The numbers are those of one process with the same `threads`.
        threads: of torch per process, which are part of the numbers' last digits; None for torch's own number, divided
            by `workers`.

    Returns:
        `Comparison`.

    Raises:
        FileExistsError: if `out` holds files of other programs in place of the records.
        KeyboardInterrupt: on Ctrl-C, with a note on what is kept.
        OSError: if `out` cannot be written.
        TypeError: for networks or groups without names, or data that are not `LabelledData`.
        ValueError: for no models, an unknown probe, or a network without data, group or place.
        ValueError: for a name that no file can have.
    """
    at_least(1, workers=workers, threads=threads)
    work = prepare(models, data, test=test, probes=probes, groups=groups, along=along, loss=loss, seed=seed)
    missing = [name for name in work.models if along is not None and not math.isfinite(along.get(name, math.nan))]
    if missing:
        msg = f"along must hold a finite number for every network, got none for {', '.join(missing)}"
        raise ValueError(msg)
    if out is not None:
        own = work.groups
        check_places(out, {one.name: own.values() if one.probe == LANDSCAPE else own for one in work.chosen})
    comparison = measure_all(
        work, progress=progress, out=out, again=again, workers=workers, threads=threads,
        along=None if along is None else {name: float(along[name]) for name in work.models}, along_name=along_name,
    )  # fmt: skip
    if comparison.refusals:
        first = comparison.refusals[0]
        warnings.warn(
            f"{len(comparison.refusals)} measurements were refused and have a reason in .refusals, the first being "
            f"{first.measurement or 'all'} of {first.network}: {first.reason}",
            RefusalWarning,
            stacklevel=2,
        )
    return comparison


def prepare(
    models: Checked[Mapping[str, nn.Module]],
    data: Checked[LabelledData | Mapping[str, LabelledData]],
    *,
    test: Checked[LabelledData | Mapping[str, LabelledData] | None] = None,
    probes: Checked[Given | Sequence[Given] | None] = None,
    groups: Checked[Mapping[str, str] | None] = None,
    along: Checked[Mapping[str, float] | None] = None,
    loss: Any = None,
    seed: int = 0,
) -> Work:
    """The work of a comparison, with checked arguments; see `compare`."""
    asked = probes is not None
    chosen = choose(DEFAULT if probes is None else probes)
    named, own, group = check_networks(models, data, groups)
    if not asked:
        chosen = choose(default_for([own[name] for name in named], along=along is not None))
    tests = {} if test is None else dict(test) if isinstance(test, Mapping) else dict.fromkeys(named, check_data(test))
    tests = _other_samples(tests, own)
    return Work(models=named, data=own, test=tests, chosen=chosen, groups=group, seed=seed, loss=loss, asked=asked)


def default_for(data: Sequence[LabelledData], *, along: bool) -> list[str]:
    """The measurements of `DEFAULT` that these data allow; one warning says what is left out for lack of classes."""
    names = [name for name in DEFAULT if not along or name != LANDSCAPE]  # a triangle of three epochs answers nothing
    if any(own.classes is not None for own in data):
        return names
    left_out = [name for name in names if name in NEED_CLASSES]
    warnings.warn(f"no class labels: the probes of the inputs are left out ({', '.join(left_out)})", stacklevel=3)
    return [name for name in names if name not in NEED_CLASSES]


def _other_samples(tests: dict[str, LabelledData], data: Mapping[str, LabelledData]) -> dict[str, LabelledData]:
    """The test data that are not the training data again; one warning says which are left out."""
    same = [name for name, own in tests.items() if name in data and own.fingerprint == data[name].fingerprint]
    if same:
        count = f" of {len(same)} of {len(data)} networks" if len(same) < len(data) else ""
        warnings.warn(
            f"test must be other samples than data, got the same {len(data[same[0]])} samples again{count}. They are "
            "measured without test figures: give held-out samples, or leave test out",
            stacklevel=3,
        )
    return {name: own for name, own in tests.items() if name not in same}


def check_networks(
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
