"""Sources of data sets: folders, a local copy of the hub, or the Hugging Face hub."""

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flatprobe.data.folders import Found, read_image_splits, scan
from flatprobe.utils.arguments import meant

# The environment variable of a local copy, and its folders by the names on the hub (for offline machines).
VARIABLE = "FLATPROBE_DATASETS"
_FOLDERS = {"ylecun/mnist": "mnist", "mnist": "mnist", "uoft-cs/cifar10": "cifar10", "cifar10": "cifar10"}
_FUNCTION = (
    'Write a function in a file of your own, here data.py: `def load(split):  # "train" or "test"` / '
    "`    inputs, targets = ...  # tensors or arrays, of this split alone` / `    return inputs, targets`; leave split "
    "out where there are no test data. Then name it by --data data.py:load, or give its result to fp.load_data"
)
_ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def splits_of(name: Any, split: str) -> tuple[Mapping[str, Any], dict[str, object]]:
    """Split -> table of a data set, and its origin for records.

    Args:
        name: a folder, a name on the hub, or a table or dictionary of tables of the `datasets` library.
        split: the requested split.

    Returns:
        Split -> table of the `datasets` library, and {"name": ..., "folder": ...}, {"name": ..., "hub": ...} or {}.

    Raises:
        TypeError: for another kind of object.
        FileNotFoundError: if there is no such data set.
    """
    if not isinstance(name, str | os.PathLike):
        return _tables_of(name, split), {}
    folder = _folder_of(name)
    if folder is not None:
        return _read_folder(folder, split), {"name": str(name), "folder": str(folder)}
    if str(name) in _readers():
        msg = (
            f"{str(name)!r} is a reader of `datasets`, which would read the files of the current folder. Give its path"
        )
        raise FileNotFoundError(msg)
    given = os.environ.get(VARIABLE)
    if Path(name).expanduser().is_file():
        msg = f"the data must be a folder, a name, or a file .npz, .pt or .pth, got the file {name}. {_FUNCTION}"
        raise FileNotFoundError(msg)
    looked = f"no folder {Path(name).expanduser().absolute()}; {VARIABLE} is {repr(given) if given else 'not set'}"
    if str(name) in _FOLDERS:
        looked += f" (looked for its {_FOLDERS[str(name)]!r})" if given else ""
    fix = (
        f"Give the path of a folder, set {VARIABLE} to one that holds {' or '.join(sorted({*_FOLDERS.values()}))}, or "
        "connect to the hub"
    )
    if isinstance(name, os.PathLike) or not name or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        msg = f"there is no data set {str(name)!r}: {looked}; a path is not looked up on the hub. {fix}"
        raise FileNotFoundError(msg)
    try:
        return _load(name), {"name": name, "hub": name}
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"there is no data set {name!r}: {looked}; the Hugging Face hub says: {error}. {fix}"
        raise FileNotFoundError(msg) from error


def is_table(name: Any) -> bool:
    """True for names, paths, and tables of the `datasets` library, alone or by split."""
    if isinstance(name, str | os.PathLike):
        return True
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(name).__mro__}
    return not kinds.isdisjoint({"datasets.arrow_dataset.Dataset", "datasets.dataset_dict.DatasetDict"})


def one_split(splits: Mapping[str, Any], split: str, name: str) -> Any:
    """Table of one split.

    Args:
        splits: split -> table.
        split: the split.
        name: name of the data set in an error.

    Returns:
        The table, with plain Python values.

    Raises:
        ValueError: if the split does not exist or is empty.
    """
    if split not in splits:
        msg = f"{name} has no split {split!r}; expected one of {', '.join(map(repr, splits))}{meant(split, splits)}"
        raise ValueError(msg)
    if len(splits[split]) == 0:
        msg = f"the split {split!r} of {name} is empty; expected at least one row"
        raise ValueError(msg)
    return splits[split].with_format(None)  # save_to_disk keeps a table's format


def _folder_of(name: str | os.PathLike[str]) -> Path | None:
    own = Path(name).expanduser()
    if str(name) and own.is_dir():
        return own.resolve()
    given = os.environ.get(VARIABLE)
    stands = Path(given).expanduser() / _FOLDERS[str(name)] if given and str(name) in _FOLDERS else None
    return stands.resolve() if stands is not None and stands.is_dir() else None


def _tables_of(tables: Any, split: str) -> Mapping[str, Any]:
    """Split -> table, of tables that were read already.

    Raises:
        TypeError: for anything else.
    """
    import datasets

    if isinstance(tables, datasets.Dataset):
        return {split: tables}
    if isinstance(tables, datasets.DatasetDict):
        return {**tables}
    msg = (
        f"the name is a {type(tables).__name__}; expected the name of a data set, the path of its folder, or a table "
        "of `datasets`. fp.LabelledData.from_dataset(...) takes data sets of (input, label) pairs, "
        "fp.LabelledData(inputs, labels) takes tensors"
    )
    raise TypeError(msg)


def _readers() -> set[str]:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return {*_PACKAGED_DATASETS_MODULES}


def _read_folder(folder: Path, split: str) -> Mapping[str, Any]:
    import datasets

    saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    found = Found() if saved else scan(folder)
    if found.pictures and not found.holds_tables:
        return read_image_splits(folder, found, split)
    archives = [path for path in found.others if path.lower().endswith(_ARCHIVES)]
    if archives and not found.holds_tables:
        msg = f"the folder {folder} holds {archives[0]!r}, an archive, and no images; expected its contents: unpack it"
        raise FileNotFoundError(msg)
    try:
        with _literal(folder) as path:
            if not saved:
                return _load(path) if path == str(folder) else _parquet(path)
            with _quiet():
                tables = datasets.load_from_disk(path)
        return tables if isinstance(tables, datasets.DatasetDict) else {str(tables.split or "train"): tables}
    # A script beside the files is a RuntimeError, since `datasets` runs no script.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetGenerationError) as error:
        several = f"; it holds {len(found.others)} other files, such as {found.others[0]!r}" if found.others else ""
        msg = (
            f"the folder {folder} is no data set that `datasets` can read ({error}{several}); expected parquet files "
            "(data/train-*.parquet), one folder of images per class, or the output of save_to_disk"
        )
        raise FileNotFoundError(msg) from error


@contextmanager
def _literal(folder: Path) -> Iterator[str]:
    """A path of the folder that `datasets` cannot take for a pattern.

    Where the path itself is a pattern, a link in the cache of `datasets` replaces it. The link is always the same, so
    that cached contents are found again.
    """
    import datasets

    if not re.search(r"[*?\[\]]|::", str(folder)):
        yield str(folder)
        return
    links = Path(datasets.config.HF_DATASETS_CACHE) / "flatprobe_links"
    link = links / hashlib.blake2b(str(folder).encode(), digest_size=16).hexdigest()
    links.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(folder, target_is_directory=True)
    yield str(link)


def _parquet(path: str) -> Mapping[str, Any]:
    """The parquet files below a link, which `load_dataset` would resolve."""
    import datasets
    from datasets.data_files import get_data_patterns

    files = {split: [f"{path}/{own}" for own in patterns] for split, patterns in get_data_patterns(path).items()}
    with _quiet():
        tables: Mapping[str, Any] = datasets.load_dataset("parquet", data_files=files)
    return tables


def _load(name: str) -> Mapping[str, Any]:
    import datasets

    with _quiet() as said:
        loaded: Mapping[str, Any] = datasets.load_dataset(name)
    if cached := [words for words in said if "latest cached" in words]:
        warnings.warn(
            f"the hub cannot be reached, and {name!r} is read from the cache of `datasets`, which may hold a folder of "
            f"this name. {cached[-1]}",
            stacklevel=4,
        )
    return loaded


class _Kept(logging.Handler):
    """Messages of a logger, kept instead of shown."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.words.append(record.getMessage())


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Silence `datasets` and the client of the hub within the block, and give the warnings of `datasets`."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    said = _Kept()
    logger = datasets.logging.get_logger("datasets")
    handlers, propagate, logger.handlers, logger.propagate = logger.handlers, logger.propagate, [said], False
    levels = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    bars = not datasets.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.logging.set_verbosity(logging.WARNING)
        hub_logging.set_verbosity(logging.ERROR)
        datasets.disable_progress_bars()
        try:
            yield said.words
        finally:
            logger.handlers, logger.propagate = handlers, propagate
            datasets.logging.set_verbosity(levels[0])
            hub_logging.set_verbosity(levels[1])
            if bars:
                datasets.enable_progress_bars()
