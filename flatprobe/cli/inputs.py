"""What the command line names -> networks and data."""

import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from flatprobe.class_names import class_names_of, misplaced
from flatprobe.data import LabelledData
from flatprobe.data.validation import tell_missed_classes
from flatprobe.loading import load_data

_CONFIG = "config.json"


def names_of(runs: Sequence[Path]) -> dict[str, Path]:
    """A name for each run: its folder's, or its file's without the ending.

    Raises:
        ValueError: if two have the same name.
    """
    names: dict[str, Path] = {}
    for path in runs:
        name = path.name if path.is_dir() else path.stem
        if name in names:
            msg = (
                f"the runs {names[name]} and {path} have the same name, {name!r}; expected different ones: rename a "
                "folder"
            )
            raise ValueError(msg)
        names[name] = path
    return names


def group_of(name: str) -> str:
    """The name without a number at its end: `natural-0` belongs to `natural`."""
    return re.sub(r"[-_ .]?\d+$", "", name) or name


def architecture(reference: str) -> nn.Module:
    """The module that `package.module:factory` makes.

    Raises:
        ValueError: if the reference has another form, or what it makes is no module.
    """
    module, _, factory = reference.partition(":")
    if not module or not factory:
        msg = f"--model is {reference!r}; expected package.module:factory, importable from here"
        raise ValueError(msg)
    made = getattr(importlib.import_module(module), factory)()
    if not isinstance(made, nn.Module):
        msg = f"{reference} made a {type(made).__name__}; expected a torch.nn.Module"
        raise ValueError(msg)
    return made


def data_of(run: Path, name: str | None, split: str | None, limit: int | None) -> LabelledData:
    """The named data, or what the run was trained on: its random labels too, but for another split than its own.

    Raises:
        ValueError: if neither is known.
    """
    if name is not None:
        return load_data(name, split or "train", limit=limit)
    config = (run if run.is_dir() else run.parent) / _CONFIG
    if not config.is_file():
        msg = f"{run} does not say what it was trained on (no {_CONFIG}); name the data with --data"
        raise ValueError(msg)
    described = json.loads(config.read_text())["data"]
    source = described["source"]
    if "name" not in source:
        msg = f"{run} was trained on data without a name; name the data with --data"
        raise ValueError(msg)
    columns = {key: source.get(key) for key in ("crop", "image_column", "label_column")}
    if split not in {None, source["split"]}:
        return load_data(source["name"], str(split), limit=limit, **columns)
    # Streamed data's fingerprint covers some of the samples, so it compares with that of data streamed again.
    stream = described.get("fingerprint_of", "all samples") != "all samples"
    data = load_data(source["name"], source["split"], limit=source.get("limit"), stream=stream, **columns)
    if source.get("class_names") and data.source.get("class_names") != source["class_names"]:
        data = data.with_class_names(source["class_names"])
    for draw in source.get("random_labels", []):
        data = data.with_random_labels(draw["fraction"], draw["seed"])
    if data.fingerprint != described["fingerprint"]:
        msg = (
            f"{source['name']} has the fingerprint {data.fingerprint} here and had {described['fingerprint']} when "
            f"{run} was "
            "trained; name the data to measure on with --data"
        )
        raise ValueError(msg)
    if limit is None:
        return data
    tell_missed_classes(data.labels, limit)
    return data.head(limit)


def numbered_for(network: nn.Module, data: LabelledData) -> LabelledData:
    """The data with their classes in the network's order, where both name the same classes in different ones."""
    own, names = class_names_of(network), data.source.get("class_names")
    if own is None or names is None or not {*names} <= {*own[0]} or misplaced(names, own[0]) is None:
        return data
    print("the classes of the data are numbered as the network's, by their names", file=sys.stderr)
    return data.with_class_names(own[0])
