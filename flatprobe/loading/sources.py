"""Where a data set is read from: a folder, a folder that stands for the hub, or the hub."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The environment variable, and the folders below it, that stand for names on the hub (offline machines).
VARIABLE = "FLATPROBE_DATASETS"
_FOLDERS = {"ylecun/mnist": "mnist", "mnist": "mnist", "uoft-cs/cifar10": "cifar10", "cifar10": "cifar10"}


def splits_of(name: str | os.PathLike[str]) -> tuple[Mapping[str, Any], dict[str, object]]:
    """The tables of a data set by split, and what a record says of where they were read.

    Args:
        name: a folder, or a name on the hub.

    Returns:
        Split to table of the `datasets` library, and {"folder": ...} or {"hub": ...}.

    Raises:
        FileNotFoundError: if there is no such data set, with where it was looked for.
    """
    folder = _folder_of(name)
    if folder is not None:
        return _read_folder(folder), {"folder": str(folder)}
    given = os.environ.get(VARIABLE)
    looked = f"no folder {Path(name).expanduser().absolute()}; {VARIABLE} is {repr(given) if given else 'not set'}"
    if str(name) in _FOLDERS:
        looked += f" (looked for its {_FOLDERS[str(name)]!r})" if given else ""
    cure = (
        f"give the path of a folder, set {VARIABLE} to one that holds {' or '.join(sorted({*_FOLDERS.values()}))}, or "
        "connect to the hub"
    )
    if isinstance(name, os.PathLike) or not name or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        msg = f"there is no data set {str(name)!r}: {looked}; a path is not looked up on the hub: {cure}"
        raise FileNotFoundError(msg)
    try:
        return _loaded(name), {"hub": name}
    except (OSError, ValueError) as error:
        msg = f"there is no data set {name!r}: {looked}; the Hugging Face hub says: {error}. Cure: {cure}"
        raise FileNotFoundError(msg) from error


def one_split(splits: Mapping[str, Any], split: str, name: str) -> Any:
    """The table of one split.

    Args:
        splits: tables by split.
        split: which.
        name: the data set's, for the error.

    Returns:
        The table, giving plain Python values.

    Raises:
        ValueError: if there is no such split, or it is empty.
    """
    if split not in splits:
        msg = f"{name} has no split {split!r}; expected one of {', '.join(map(repr, splits))}"
        raise ValueError(msg)
    if len(splits[split]) == 0:
        msg = f"the split {split!r} of {name} is empty; expected at least one row"
        raise ValueError(msg)
    return splits[split].with_format(None)  # save_to_disk keeps formats


def _folder_of(name: str | os.PathLike[str]) -> Path | None:
    own = Path(name).expanduser()
    if str(name) and own.is_dir():
        return own.resolve()
    given = os.environ.get(VARIABLE)
    stands = Path(given).expanduser() / _FOLDERS[str(name)] if given and str(name) in _FOLDERS else None
    return stands.resolve() if stands is not None and stands.is_dir() else None


def _read_folder(folder: Path) -> Mapping[str, Any]:
    import datasets

    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            with _quiet():
                saved = datasets.load_from_disk(str(folder))
            return saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
        return _loaded(str(folder))
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        msg = (
            f"the folder {folder} is no data set that `datasets` can read ({error}); expected parquet files "
            "(data/train-*.parquet), a folder of pictures a class, or what save_to_disk wrote"
        )
        raise FileNotFoundError(msg) from error


def _loaded(name: str) -> Mapping[str, Any]:
    import datasets

    with _quiet():
        loaded: Mapping[str, Any] = datasets.load_dataset(name)
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of `datasets` and the hub's client; afterwards as the user had them."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    levels = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    bars = not datasets.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.logging.set_verbosity(logging.ERROR)
        hub_logging.set_verbosity(logging.ERROR)
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            datasets.logging.set_verbosity(levels[0])
            hub_logging.set_verbosity(levels[1])
            if bars:
                datasets.enable_progress_bars()
