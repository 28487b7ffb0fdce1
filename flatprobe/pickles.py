"""Checkpoints that torch.save wrote, read without executing code and without hanging on hostile ones."""

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

CURE = "save model.state_dict() with safetensors.torch.save_file"

# Where training programs put a state_dict, in the order in which it is looked for; averaged weights come last.
NESTS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights", "module", "last",
    "best", "model_ema", "state_dict_ema", "ema",
)  # fmt: skip
_DEPTH = 3  # {"model": {"state_dict": ...}}

_SIZE, _NESTED = 10**7, 500  # of what a pickle builds: far more than any checkpoint's, and still hashed at once
_EXPANSION = 20  # torch.save does not compress at all


def unpickled(file: Path) -> object:
    """What a file of torch.save holds, by torch's weights-only unpickler.

    Raises:
        ValueError: if it holds code, is damaged, or would grow without bound.
    """
    _check_archive(file)
    _check_size(file)
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols that it did not write before it refuses what they hold.
            warnings.simplefilter("ignore", UserWarning)
            content: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "it holds more than tensors, or is damaged"
        msg = f"the pickle {file} was refused, since reading it could execute code: {reason}; {CURE}"
        raise ValueError(msg) from error
    except Exception as error:  # damaged bytes lead the unpickler to exceptions of any kind
        raise ValueError(_damaged(file, str(error) or type(error).__name__)) from error
    return content


def _damaged(file: Path, reason: str) -> str:
    size = file.stat().st_size
    return (
        f"the checkpoint {file} ({size} bytes) is truncated or corrupt ({reason.splitlines()[0][:200]}); copy or save "
        "it again"
    )


def _check_archive(file: Path) -> None:
    """TorchScript and torch.export archives are zip files, as state_dicts are, but hold programs.

    torch does not compare the checksums that it has written, so they are compared here.

    Raises:
        ValueError: if the file is such an archive, is damaged, or is small and unpacks to far more.
    """
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if {Path(entry.filename).name for entry in entries} & {"constants.pkl", "archive_format"}:
                msg = f"{file} is a TorchScript or torch.export archive and was refused: it holds a program; {CURE}"
                raise ValueError(msg)
            whole, size = sum(entry.file_size for entry in entries), file.stat().st_size
            if whole > _EXPANSION * size:
                msg = (
                    f"the checkpoint {file} was refused: its {size} bytes unpack to {whole}; expected what torch.save "
                    "wrote, which does not compress"
                )
                raise ValueError(msg)
            if any(entry.CRC for entry in entries):  # torch.serialization.set_crc32_options(False) writes none
                changed = archive.testzip()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(_damaged(file, str(error))) from error
    if any(entry.CRC for entry in entries) and changed is not None:
        raise ValueError(_damaged(file, f"the checksum of {changed} does not fit"))


def _check_size(file: Path) -> None:
    """A few hundred bytes of tuples, each twice in the next, would take hours to hash.

    Raises:
        ValueError: if a pickle builds something that is larger or deeper than any checkpoint.
    """
    size, depth = 0, 0
    for stream in _streams(file):
        with stream, suppress(Exception):  # torch says what is wrong with a damaged one
            for _ in range(5):  # torch's old format is five pickles in a row
                size, depth = map(max, (size, depth), _extent(stream))
    if size > _SIZE or depth > _NESTED:
        msg = (
            f"the pickle {file} was refused: it builds {size} objects, {depth} inside one another; expected a "
            f"state_dict; {CURE}"
        )
        raise ValueError(msg)


def _streams(file: Path) -> Iterator[IO[bytes]]:
    """The pickles of an archive, or the file itself."""
    if not zipfile.is_zipfile(file):
        yield file.open("rb")
        return
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".pkl"):
                yield archive.open(name)


def _extent(stream: IO[bytes]) -> tuple[int, int]:
    """How many objects a pickle builds, each counted wherever it is part of another, and how deep they are nested.

    The opcodes' own descriptions say what they take from the stack and leave there; nothing is built.
    """
    stack: list[tuple[int, int] | None] = []
    memo: dict[object, tuple[int, int] | None] = {}
    size, depth = 0, 0
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif opcode.name in {"GET", "BINGET", "LONG_BINGET"}:
            stack.append(memo[argument])
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            parts: list[tuple[int, int]] = []
            before = list(opcode.stack_before)
            if pickletools.markobject in before:
                while (part := stack.pop()) is not None:
                    parts.append(part)
                before = before[: before.index(pickletools.markobject)]
            parts += [part for _ in before if (part := stack.pop()) is not None]
            own = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
            size, depth = max(size, own[0]), max(depth, own[1])
            stack += [own] * len(opcode.stack_after)
    return size, depth


def state_of(content: object, file: Path) -> dict[str, Tensor]:
    """The state_dict itself, or the one under a customary key, or the only one that there is.

    What else lies beside the tensors (an epoch, a version, an empty _extra_state) is left out.

    Raises:
        ValueError: if there is none, or several of which none is under a customary key.
    """
    found = _states(content, _DEPTH)
    customary = [key for key in ("", *NESTS) if key in found]
    if customary or len(found) == 1:
        return found[customary[0] if customary else next(iter(found))]
    words = [key[:40] for key in content if isinstance(key, str)] if isinstance(content, Mapping) else []
    keys = f" with the keys {', '.join(words[:5])}" if words else ""
    several = f", and several state_dicts: {', '.join(found)}; save the one that is meant alone" if found else ""
    msg = (
        f"the checkpoint {file} holds a {type(content).__name__}{keys}{several}; expected a state_dict (names to "
        f"tensors), itself or under one of {', '.join(NESTS)}; {CURE}"
    )
    raise ValueError(msg)


def _states(content: object, depth: int) -> dict[str, dict[str, Tensor]]:
    """The state_dicts by the key that they lie under, "" for the content itself."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content) or depth < 0:
        return {}
    nested: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items():
        own = _states(value, depth - 1)
        if len(own) == 1:
            nested[key] = next(iter(own.values()))
        else:
            nested |= {inner: state for inner, state in own.items() if inner not in nested}
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and not nested.keys() & {*NESTS} and len(tensors) > max(map(len, nested.values()), default=0):
        return {"": tensors}
    return nested
