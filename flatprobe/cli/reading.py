"""Data that a command names, or that a run was trained on."""

import copy
import inspect
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatprobe.utils.references import call, resolve

if TYPE_CHECKING:
    from flatprobe.data import LabelledData

_CONFIG = "config.json"
_ACCEPTED = (
    '"digits", a name on the Hugging Face hub, a folder of images by class or of parquet files, a file .npz or .pt of '
    "arrays, or a function: --data data.py:load"
)


def data_of(run: Path | None, name: str | None, split: str | None, limit: int | None, **changes: Any) -> "LabelledData":
    """The named data, or a run's training data with its random labels; another split keeps its natural labels.

    Args:
        run: folder or file of a run, read where no name is given.
        name: name of the data, a path, or a reference to a function.
        split: the split; None for the training split.
        limit: number of samples.
        **changes: `resize`, `crop`, `greyscale` and `colour` of `load_data`.

    Raises:
        ValueError: if the data are not known.
    """
    if name is not None:
        return _load(name, split or "train", limit, tuple(changes.items()))
    assert run is not None
    config = (run if run.is_dir() else run.parent) / _CONFIG
    return _training_data(run, config, split, limit, changes)


def _is_reference(name: str) -> bool:
    return re.fullmatch(r".+:[A-Za-z_][\w.]*", name) is not None and not Path(name).exists()


def _takes_split(function: Any) -> bool:
    return "split" in inspect.signature(function).parameters


@lru_cache(maxsize=4)
def _value_of(reference: str, split: str) -> Any:
    """Return value of the function of `--data`, which gets the split if it has such a parameter.

    Raises:
        ValueError: if the reference does not lead to data.
    """
    found = resolve(reference, "--data")
    if not inspect.isroutine(found) and not inspect.isclass(found):
        return found
    return call(reference, "--data", {"split": split} if _takes_split(found) else {})


@lru_cache(maxsize=4)
def _load(name: Any, split: str, limit: int | None, options: tuple[tuple[str, Any], ...]) -> "LabelledData":
    """The data of a name, which several runs share; images that fill the memory are streamed."""
    from flatprobe.data.load import load_data
    from flatprobe.data.validation import parts_of
    from flatprobe.utils.memory import DATA_BYTES

    if not _is_reference(str(name)):
        given = dict(options)
        stream = given.pop("stream", None)
        data = load_data(name, split, limit=limit, stream=stream is not False, **given)
        sample = sum(part.nbytes for part in parts_of(data.store.first).values())
        fits = stream is False or (stream is None and len(data) * sample <= DATA_BYTES)
        streamed = data.store.place == "streamed"
        return load_data(name, split, limit=limit, **given) if streamed and fits else data
    data = copy.copy(load_data(_value_of(name, split), split, limit=limit, **dict(options)))
    data.source = {**data.source, "name": name, "split": split}  # of the copy, since the function may keep its data
    return data


def _training_data(
    run: Path, config: Path, split: str | None, limit: int | None, changes: dict[str, Any]
) -> "LabelledData":
    """The data that a run's config.json names.

    Raises:
        ValueError: if it names none, or they are other data now.
    """
    from flatprobe.data.validation import warn_of_missed_classes
    from flatprobe.utils.tensor_files import read_json

    if not config.is_file():
        msg = (
            f"--data must name the data of {run}, whose training data are unknown: there is no {_CONFIG}. Give "
            f"{_ACCEPTED}."
        )
        raise ValueError(msg)
    described = read_json(config, "name the data with --data").get("data")
    source: Any = described.get("source") if isinstance(described, dict) else None
    if not isinstance(described, dict) or not isinstance(source, dict):
        msg = f"--data must name the data of {run}, whose training data {config} does not name. Give {_ACCEPTED}."
        raise ValueError(msg)
    if not {"name", "split"} <= source.keys():
        msg = f"--data must name the data of {run}, which was trained on data without a name. Give {_ACCEPTED}."
        raise ValueError(msg)
    if _is_reference(str(source["name"])):  # whoever wrote config.json would choose the code that runs
        msg = (
            f"--data must name the data of {run}, whose {_CONFIG} names a function. Its code is not run on the word of "
            f"a file: if you trust it, give --data {source['name']}"
        )
        raise ValueError(msg)
    if changes:
        msg = f"--data must name the data where {_options(changes)} is given, since {run} was trained on other images."
        raise ValueError(msg)
    named = {key: source.get(key) for key in ("crop", "image_column", "label_column", "greyscale", "colour")}
    named["resize"] = tuple(source["resize"]) if source.get("resize") else None
    if named["label_column"] and not named["image_column"]:  # a table without images
        del named["image_column"]
    columns = tuple((key, value) for key, value in named.items() if value is not None)
    if split not in {None, source["split"]}:
        return _load(source["name"], str(split), limit, columns)
    # Streamed data's fingerprint covers some of the samples, so it compares with that of data streamed again.
    stream = described.get("fingerprint_of", "all samples") != "all samples"
    data = _load(source["name"], source["split"], source.get("limit"), (*columns, ("stream", stream)))
    if source.get("class_names") and data.source.get("class_names") != source["class_names"]:
        data = data.with_class_names(source["class_names"])
    for draw in source.get("random_labels", []):
        data = data.with_random_labels(draw["fraction"], draw["seed"])
    if data.fingerprint != described.get("fingerprint"):
        msg = (
            f"{source['name']} must be the training data of {run}, with the fingerprint "
            f"{described.get('fingerprint')}, got {data.fingerprint}. Name the data to measure on with --data."
        )
        raise ValueError(msg)
    if limit is None:
        return data
    warn_of_missed_classes(data.labels, limit)
    return data.head(limit)


def image_size(name: str, split: str | None) -> tuple[int, int] | None:
    """Height and width of the first image of named data; None for other data, or images of several sizes."""
    from flatprobe.data.load import load_data

    value = _value_of(name, split or "train") if _is_reference(name) else name
    try:
        shape: Any = getattr(load_data(value, split or "train", limit=1, stream=True).store.first, "shape", ())
    except ValueError:  # a split that is not there, which the reading refuses
        return None
    return (shape[-2], shape[-1]) if len(shape) == 3 else None


def _options(changes: dict[str, Any]) -> str:
    return ", ".join(f"--{name}" for name in changes)


def test_data_of(
    data: "LabelledData",
    run: Path | None,
    name: str | None,
    split: str | None,
    test: str | None,
    limit: int | None,
    **changes: Any,
) -> "LabelledData | None":
    """The test data of `--test`, or of the split "test" where there is one.

    Args:
        data: the measured data.
        run: folder or file of a run, read where no name is given.
        name: name of the data, a path, or a reference to a function.
        split: the measured split; None for the training split.
        test: the test split; None for "test" where it is another one and can be read, "none" for none.
        limit: largest number of samples.
        **changes: `resize`, `crop`, `greyscale` and `colour` of `load_data`.

    Raises:
        ValueError: for a split that is named and cannot be read.
    """
    wanted = test or "test"
    if test == "none" or wanted == (split or data.source.get("split", "train")):
        return None
    if test is None and not _has_test(name or data.source.get("name")):
        return None
    try:
        whole = data_of(run, name, wanted, None, **changes)
    except ValueError:
        if test is None:
            return None
        raise
    return whole if limit is None or limit >= len(whole) else whole.head(limit)


def _has_test(name: Any) -> bool:
    """True if the named data may have the split "test"."""
    from flatprobe.data.load import splits_there

    if name is None:
        return False
    if _is_reference(name):
        function = resolve(name, "--data")
        if callable(function) and _takes_split(function):
            return True
        name = _value_of(name, "test")
    return "test" in splits_there(name)
