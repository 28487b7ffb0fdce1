"""Checkpoints in folders: which files and folders are some, and their short names."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from flatprobe.models.architectures import CONFIG
from flatprobe.utils.natural import natural
from flatprobe.utils.results import printable
from flatprobe.utils.tensor_files import is_index, read_json, shards

WHOLE = (  # files of a folder that is one checkpoint
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_ENDINGS = (
    ".safetensors", ".safetensors.index.json", ".bin.index.json", ".pt", ".pth", ".pth.tar", ".pt.tar", ".ckpt", ".bin",
    ".th", ".pt2",
)  # fmt: skip
# Files of training programs that hold no weights of a network.
_BESIDE = re.compile(
    r"(optim|scheduler|lr_scheduler|rng_state|random_states|training_args|scaler|sampler|resume)([._-]?\d+)*\."
    r"|.*(optimizer|optim_states)"
)
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "wandb", "mlruns"}
_DEPTH, _MOST = 8, 20_000  # levels of folders, and files that are looked at
_PLAIN = {"model", "last", "best", "pytorch_model"}  # names that say nothing beside a config.json


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints of a file or folder, in natural order.

    A file, a run folder, a folder of transformers and a folder with one file of weights beside a config.json are one
    checkpoint each. In other folders all files of weights count, and the folders inside are searched. Files of
    optimizers, schedulers and the like are left out, and so are hidden folders. A link to a file that is found
    elsewhere in the folder does not count.

    Raises:
        FileNotFoundError: if the path does not exist, or the folder holds no checkpoint.
        ValueError: if the folder holds too many files.
    """
    if not path.exists():
        msg = f"there is no checkpoint {path}; expected a .safetensors, .pt, .pth, .ckpt or .bin file, or a folder"
        raise FileNotFoundError(msg)
    if not path.is_dir() or _is_checkpoint(path):
        return [path]
    found = list(_search(path))
    by_place: dict[Path, Path] = {}
    for file in sorted(found, key=lambda file: (file.is_symlink(), natural(file))):
        by_place.setdefault(file.resolve(), file)
    if not by_place:
        msg = (
            f"the folder {path} holds no checkpoint; expected run folders (config.json, last.safetensors), folders of "
            f"transformers, or files that end in {', '.join(_ENDINGS)}"
        )
        raise FileNotFoundError(msg)
    return sorted(by_place.values(), key=natural)


def _search(folder: Path) -> Iterator[Path]:
    """The checkpoints in a folder and its folders.

    Raises:
        ValueError: if there are too many files.
    """
    count, seen = 0, set[Path]()
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        count += len(files) + len(folders)
        if count > _MOST:
            msg = f"the folder {folder} holds more than {_MOST} files; give the folder of the checkpoints inside it"
            raise ValueError(msg)
        if here.resolve() in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(here.resolve())
        if here != folder and _is_checkpoint(here):
            folders.clear()
            yield here
            continue
        yield from weight_files(here)
        deep = len(here.relative_to(folder).parts) >= _DEPTH
        folders[:] = [] if deep else [name for name in folders if not name.startswith(".") and name not in _SKIPPED]


def _is_checkpoint(folder: Path) -> bool:
    """True for a folder that is one checkpoint as a whole."""
    with suppress(ValueError, OSError):
        files = weight_files(folder)
        if (folder / CONFIG).is_file() and files:
            own = (folder / "last.safetensors").is_file() and "network" in read_json(folder / CONFIG, "")
            return own or "model_type" in read_json(folder / CONFIG, "") or (len(files) == 1 and files[0].name in WHOLE)
        return len(files) == 1 and is_index(files[0]) and files[0].name in WHOLE
    return False


def weight_files(folder: Path) -> list[Path]:
    """The files of weights in a folder itself, in natural order; an index stands for the files that it names.

    Where the same weights are there in two formats (`model.safetensors`, `pytorch_model.bin`), the safetensors count.
    """
    files = [file for file in folder.iterdir() if _is_weights(file)]
    named: set[str] = set()
    for index in [file for file in files if is_index(file)]:
        with suppress(ValueError, OSError):  # a damaged index is refused when it is read
            named |= {shard.name for shard in shards(index)}
    files = [file for file in files if file.name not in named]
    names = {file.name for file in files}
    if names & {*WHOLE[:2]}:
        files = [file for file in files if file.name not in WHOLE[2:]]
    if WHOLE[0] in names:
        files = [file for file in files if file.name != WHOLE[1]]
    return sorted(files, key=natural)


def _is_weights(file: Path) -> bool:
    name = file.name.lower()
    if name.startswith(".") or _BESIDE.match(name) or not name.endswith(_ENDINGS) or not file.is_file():
        return False
    if not name.endswith(".bin"):
        return True
    with suppress(OSError), file.open("rb") as opened:  # many programs call their files .bin
        return opened.read(2)[:1] in {b"P", b"\x80"}
    return False


def names_of(paths: Sequence[Path]) -> dict[str, Path]:
    """A short name per checkpoint, from what differs in the paths.

    The name is that of the file or folder. Where several have it, the folders above that differ are put in front, and
    the name itself is left out if all of these have it: `run_a/model.pt` and `run_b/model.pt` are run_a and run_b.

    Raises:
        ValueError: if a checkpoint is given twice.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        if (place := path.resolve()) in seen:
            twice = str(path) if path == seen[place] else f"{seen[place]} and {path}, which are the same"
            msg = f"checkpoints must be given once, got {twice}. Leave one out."
            raise ValueError(msg)
        seen[place] = path
    parts = [_parts(path) for path in paths]
    counts = Counter(own[-1] for own in parts)
    shared = {tuple(own[:-1]) for own in parts if counts[own[-1]] > 1}  # their neighbours are named in the same way
    several = [own for own in parts if tuple(own[:-1]) in shared]
    names = ["/".join(_differing(own, several)) if own in several else own[-1] for own in parts]
    counts = Counter(names)
    names = [  # a.pt and a.safetensors
        name if counts[name] == 1 else f"{name.removesuffix(own[-1])}{path.name}"
        for name, own, path in zip(names, parts, paths, strict=True)
    ]
    if len({*names}) < len(names):
        names = [str(path) for path in paths]
    return dict(zip(map(printable, names), paths, strict=True))


def _parts(path: Path) -> list[str]:
    """The folders and the name of a path, without its ending."""
    whole = Path(os.path.normpath(path.absolute()))
    own = list(whole.parts)
    if not path.is_dir():
        ending = max((e for e in _ENDINGS if whole.name.lower().endswith(e)), key=len, default=whole.suffix)
        own[-1] = whole.name[: len(whole.name) - len(ending)]
        if own[-1] in _PLAIN and (whole.parent / CONFIG).is_file() and len(own) > 1:
            own[-2:] = [f"{own[-2]}/{own[-1]}"]
    return own


def _differing(own: Sequence[str], others: Sequence[Sequence[str]]) -> list[str]:
    """The last parts of a path that tell it from the others, without those that all have."""
    tails = [tuple(reversed(other)) for other in others]
    longest = max(map(len, tails))
    depth = next((k for k in range(1, longest + 1) if len({tail[:k] for tail in tails}) == len(tails)), longest)
    kept = [k for k in range(min(depth, len(own)), 0, -1) if len({tail[k - 1 : k] for tail in tails}) > 1]
    return [own[-k] for k in kept] or [own[-1]]
