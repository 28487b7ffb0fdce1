"""Folders of images, with folders for splits and classes."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flatprobe.data.columns import LABEL_NAMES
from flatprobe.data.images import ENDINGS
from flatprobe.data.metadata import METADATA, read_metadata

# First-level folders that are splits, in any case; `datasets` knows the same words.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_TABLES = {".parquet", ".arrow", ".tar"}
_IGNORED = {".ipynb_checkpoints", "__MACOSX", "__pycache__", ".git", ".cache", "Thumbs.db", "desktop.ini"}
_LISTED = 5


@dataclass
class Found:
    """Contents of a folder, as sorted paths relative to it.

    Attributes:
        pictures: files with the ending of an image file.
        others: all other files, hidden folders that hold images (with a slash at the end), and broken links.
        empty: folders without any entry.
    """

    pictures: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def holds_tables(self) -> bool:
        """True if there are tables that hold the data, rather than metadata of the images."""
        names = (Path(path) for path in self.others)
        return any(path.suffix.lower() in _TABLES and path.name not in METADATA for path in names)


def scan(folder: Path) -> Found:
    """Contents of a folder; links are followed, hidden files are skipped.

    Args:
        folder: the folder, whose path is taken literally.

    Returns:
        The files and empty folders.
    """
    found = Found()
    _scan(folder, "", (folder.resolve(),), found)
    for paths in (found.pictures, found.others, found.empty):
        paths.sort()
    return found


def _scan(folder: Path, prefix: str, above: tuple[Path, ...], found: Found) -> None:
    empty = True
    for entry in os.scandir(folder):
        empty = False
        place = prefix + entry.name
        if entry.name in _IGNORED:
            continue
        hidden = entry.name.startswith((".", "__"))
        if entry.is_dir():
            own = Path(entry.path).resolve()
            if hidden:
                found.others += [f"{place}/"] if any(map(_is_picture, Path(entry.path).iterdir())) else []
            elif own not in above:  # a link to a folder above it would never end
                _scan(Path(entry.path), f"{place}/", (*above, own), found)
        elif not hidden:
            (found.pictures if entry.is_file() and _is_picture(Path(entry.name)) else found.others).append(place)
    if empty and prefix:
        found.empty.append(prefix.rstrip("/"))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def read_image_splits(folder: Path, found: Found, split: str) -> Mapping[str, Any]:
    """Split -> table of a folder of images.

    Args:
        folder: `split/class/picture` or `class/picture`; a `metadata.csv`, `.jsonl` or `.parquet` with a column
            `file_name` may give further columns, labels among them.
        found: the contents, from `scan`.
        split: the requested split, whose images must have classes.

    Returns:
        Split -> table of the `datasets` library, with columns `image` and `label`; the split `train` alone where the
        first level names no splits. Classes, also of empty class folders, are numbered in alphabetical order over all
        splits.

    Raises:
        ValueError: if the folders do not give the classes.
    """
    roots = _roots(folder, found)
    pictures = {name: _below(found.pictures, root) for name, root in roots.items()}
    metadata = read_metadata(folder, [*dict.fromkeys(["", *roots.values()])], set(found.pictures))
    kept = {name: [path for path in paths if not metadata or path in metadata] for name, paths in pictures.items()}
    said = {column for row in metadata.values() for column in row}
    folders: dict[str, list[str] | None] = dict.fromkeys(roots)
    if not said & set(LABEL_NAMES):
        folders = {name: _classes(folder, paths, roots[name], wanted=name == split) for name, paths in kept.items()}
        if split in roots and folders[split] is None and not said:
            msg = (
                f"the images of {folder / roots[split]} are in no class folders ({_few(kept[split])}); expected one "
                "folder per class, named as the class, or a metadata.csv with the columns file_name and label"
            )
            raise ValueError(msg)
    names = _names(folder, roots, folders, found)
    _tell_left_out(folder, found, roots, {path for paths in kept.values() for path in paths}, stacklevel=6)
    return {name: _table(folder, kept[name], metadata, folders[name], names) for name in roots if kept[name]}


def _roots(folder: Path, found: Found) -> dict[str, str]:
    """Split -> the folder of its images ("" or "train/").

    Raises:
        ValueError: for two folders of one split.
    """
    tops = [*dict.fromkeys(path.partition("/")[0] for path in found.pictures if "/" in path)]
    words = [top for top in tops if top.lower() in _SPLITS]
    files = {*found.others, *found.pictures}
    divided = words and (
        len(words) == len(tops)
        or any(path.count("/") > 1 and path.partition("/")[0] in words for path in found.pictures)
        or any(f"{top}/{name}" in files for top in words for name in METADATA)
    )
    if not divided:
        return {"train": ""}
    roots: dict[str, str] = {}
    for top in tops:
        name = _SPLITS.get(top.lower(), top)
        if name in roots:
            msg = f"{folder} holds {roots[name]!r} and {top + '/'!r}, both the split {name!r}; expected one: rename one"
            raise ValueError(msg)
        roots[name] = f"{top}/"
    return roots


def _classes(folder: Path, paths: Sequence[str], root: str, *, wanted: bool) -> list[str] | None:
    """Class of each image of a split, the name of its folder; None without folders.

    Raises:
        ValueError: for the requested split, if its images are at several depths, or in folders that may be splits.
    """
    below = [path.removeprefix(root).split("/")[:-1] for path in paths]
    depths = {len(parts): path for parts, path in zip(below, paths, strict=True)}
    if depths.keys() <= {0} or (len(depths) > 1 and not wanted):
        return None
    if len(depths) > 1:
        msg = (
            f"the images of {folder / root} are at different depths ({_few([*depths.values()])}); expected each in a "
            "class folder of one depth: move the others"
        )
        raise ValueError(msg)
    for parts, path in zip(below, paths, strict=True):
        if doubtful := [part for part in parts[:-1] if _has_a_splits_word(part)]:
            msg = (
                f"{path!r} in {folder} is in {doubtful[0]!r}, which may be a split and is not on the first level or "
                f"not named as one ({', '.join(_SPLITS)}); expected split/class/picture: rename it, or give the path "
                "of the folder that holds the splits"
            )
            raise ValueError(msg)
    return [parts[-1] for parts in below]


def _has_a_splits_word(name: str) -> bool:
    return not {*re.split(r"[ ._\-0-9]+", name.lower())}.isdisjoint(_SPLITS)


def _names(folder: Path, roots: Mapping[str, str], folders: Mapping[str, list[str] | None], found: Found) -> list[str]:
    """Class names over all splits, in alphabetical order.

    Raises:
        ValueError: if there is only one class.
    """
    names = {name for classes in folders.values() if classes is not None for name in classes}
    if not names:
        return []
    further = sorted(names - {*(folders.get("train") or names)})
    for root in roots.values():
        inside = (path.removeprefix(root) for path in found.empty if path.startswith(root))
        names |= {path for path in inside if "/" not in path and (root or path.lower() not in _SPLITS)}
    if len(names) == 1:
        msg = (
            f"{folder} has one class folder, {names.pop()!r}; expected at least two classes: give the path of the "
            "folder that holds all class folders, or the splits"
        )
        raise ValueError(msg)
    if further:
        warnings.warn(
            f"{folder} has classes without images in its training split ({_few(further)}); they are numbered in "
            "alphabetical order over all splits. Move a folder of images without labels out",
            stacklevel=6,
        )
    return sorted(names)


def _table(
    folder: Path,
    paths: Sequence[str],
    metadata: Mapping[str, Mapping[str, Any]],
    classes: Sequence[str] | None,
    names: Sequence[str],
) -> Any:
    import datasets

    columns: dict[str, list[Any]] = {"image": [str(folder / path) for path in paths]}
    if metadata:
        columns |= {column: [metadata[path].get(column) for path in paths] for column in metadata[paths[0]]}
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))
    if classes is None:
        return rows
    numbers = {name: number for number, name in enumerate(names)}
    kind = datasets.ClassLabel(names=[*names])
    return rows.add_column("label", [numbers[name] for name in classes], feature=kind)


def _tell_left_out(folder: Path, found: Found, roots: Mapping[str, str], kept: set[str], stacklevel: int) -> None:
    """Warn of entries of the class folders that are not read."""
    levels = {"", *roots.values()}
    lost = [path for path in found.pictures if path not in kept]
    lost += [path for path in found.others if path.endswith("/") or path[: path.rfind("/") + 1] not in levels]
    if lost:
        warnings.warn(
            f"{len(lost)} of the entries of {folder} are left out ({_few(sorted(lost))}): they are hidden, beside the "
            f"class folders, not in the metadata file, or without an image's ending ({', '.join(sorted(ENDINGS))})",
            stacklevel=stacklevel,
        )


def _below(paths: Sequence[str], root: str) -> list[str]:
    return [path for path in paths if path.startswith(root)]


def _few(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths[:_LISTED])) + (", ..." if len(paths) > _LISTED else "")
