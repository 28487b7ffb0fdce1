"""Reading of torch.save's checkpoints without executing code."""

import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from flatprobe.utils.conversions import EXPORT, MODULE, PICKLE, SCRIPT, lines
from flatprobe.utils.placeholders import placeholders

# Limits of a pickle: far above any checkpoint (35 opcodes per tensor), and still read in seconds.
_SIZE, _NESTED, _OPCODES = 10**7, 500, 2 * 10**6
# Opcode -> whether it takes all from the last mark on, how many further entries it takes, and how many it leaves.
_EFFECTS = {
    opcode.name: (
        pickletools.markobject in opcode.stack_before,
        len([kind for kind in opcode.stack_before if kind not in (pickletools.markobject, pickletools.stackslice)]),
        len(opcode.stack_after),
    )
    for opcode in pickletools.opcodes
}
_EXPANSION = 20  # the limit of unpacked over packed size; torch.save does not compress at all


def unpickle(file: Path) -> object:
    """The content of a file of torch.save, read by torch's weights-only unpickler.

    Objects of other classes than torch's become stand-ins without content, and nothing is imported for them.

    Raises:
        ValueError: if the file calls code, is damaged, or would grow without bound.
    """
    with file.open("rb") as opened:
        zipped = opened.read(2) == b"PK"  # torch tells its two formats apart by this
    if zipped:
        _check_archive(file)
    names = _check_extent(file, zipped=zipped)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(placeholders(names)):
            # torch warns of foreign pickle protocols before it refuses their content.
            warnings.simplefilter("ignore", UserWarning)
            content: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        called = re.search(r"it (?:calls|names) [\w.]+", str(error))
        reason = (
            f"it names {asked[1]}" if asked else called[0] if called else "it holds more than tensors, or is damaged"
        )
        kind = MODULE if any(name.startswith("torch.nn.modules.") for name in names) else PICKLE
        msg = f"the pickle {file} was refused, since reading it could execute code: {reason}. {lines(file, kind)}"
        raise ValueError(msg) from error
    except Exception as error:  # damaged bytes make the unpickler raise exceptions of any kind
        objects = sorted(name for name in names if not name.startswith(("torch.", "collections.", "_codecs.")))
        msg = _damage_message(file, str(error) or type(error).__name__)
        if objects:
            msg = f"{msg}. Or its objects cannot be left out ({', '.join(objects[:3])}). {lines(file, PICKLE)}"
        raise ValueError(msg) from error
    return content


def _damage_message(file: Path, reason: str) -> str:
    size = file.stat().st_size
    return (
        f"the checkpoint {file} ({size} bytes) is truncated or corrupt ({reason.splitlines()[0][:200]}); copy or save "
        "it again"
    )


def _check_archive(file: Path) -> None:
    """Refuse damaged archives, and programs of TorchScript and torch.export.

    torch does not compare the checksums that it writes, so they are compared here.

    Raises:
        ValueError: if the file holds a program, is damaged, or unpacks to far more than its size.
    """
    changed = None
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            whole, size = sum(entry.file_size for entry in entries), file.stat().st_size
            if whole <= _EXPANSION * size and any(entry.CRC for entry in entries):
                changed = archive.testzip()  # set_crc32_options(False) writes no checksums
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(_damage_message(file, str(error) or "its end is missing")) from error
    names = {Path(entry.filename).name for entry in entries}
    for name, kind in (("archive_format", EXPORT), ("constants.pkl", SCRIPT)):
        if name in names:
            msg = f"{file} is a {kind.name} archive and was refused: it holds a program. {lines(file, kind)}"
            raise ValueError(msg)
    if "data.pkl" not in names:
        inside = ", ".join(sorted(names)[:5]) or "nothing"
        msg = (
            f"the checkpoint {file} must be a file of torch.save, got a zip archive without data.pkl; it holds {inside}"
            ". Unpack it if the checkpoint is inside."
        )
        raise ValueError(msg)
    if whole > _EXPANSION * size:
        msg = (
            f"the checkpoint {file} was refused: its {size} bytes unpack to {whole}; expected what torch.save wrote, "
            "which does not compress"
        )
        raise ValueError(msg)
    if changed is not None:
        raise ValueError(_damage_message(file, f"the checksum of {changed} does not fit"))


def _check_extent(file: Path, *, zipped: bool) -> set[str]:
    """Refuse pickles that build too much; nested tuples could take hours to hash.

    Returns:
        Names of the classes and functions in the pickles.

    Raises:
        ValueError: if a pickle builds more objects, or nests them deeper, than any checkpoint.
    """
    names: set[str] = set()
    try:
        for stream in _streams(file, zipped=zipped):
            with stream:
                for _ in range(5):  # torch's old format is five pickles in a row
                    names |= _check_pickle(stream)
    except OverflowError as error:
        msg = (
            f"the pickle {file} was refused: it builds more objects, or nests them deeper, than any checkpoint. "
            "Save the state_dict alone."
        )
        raise ValueError(msg) from error
    return names


def _streams(file: Path, *, zipped: bool) -> Iterator[Any]:
    """The pickles of an archive, or the file itself."""
    if not zipped:
        yield file.open("rb")
        return
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                entry.CRC = None  # type: ignore[assignment]  # compared already, where there is one
                yield archive.open(entry)


def _check_pickle(stream: Any) -> set[str]:
    """Names of the classes and functions in a pickle, whose objects and nesting of tuples are counted.

    The descriptions of the opcodes give their effect on the stack, so nothing is built. A damaged pickle ends the
    count: torch reports the damage.

    Raises:
        OverflowError: if a limit is exceeded.
    """
    stack: list[tuple[int, int] | None] = []
    memo: dict[object, tuple[int, int] | None] = {}
    names: set[str] = set()
    with suppress(ValueError, IndexError, KeyError, EOFError, UnicodeDecodeError, struct.error):
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            name = opcode.name
            if name == "GLOBAL":
                names.add(".".join(str(argument).split(" ")))
            if name == "MARK":
                stack.append(None)
            elif name.endswith("PUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name.endswith("GET"):
                stack.append(memo[argument])
            else:
                marked, taken, left = _EFFECTS[name]
                parts: list[tuple[int, int]] = []
                while marked and (part := stack.pop()) is not None:
                    parts.append(part)
                parts += [part for _ in range(taken) if (part := stack.pop()) is not None]
                size = 1 + sum(part[0] for part in parts)
                depth = max((part[1] for part in parts), default=0) + name.startswith("TUPLE")
                if size > _SIZE or depth > _NESTED or count > _OPCODES:
                    raise OverflowError
                stack += [(size, depth)] * left
    return names
