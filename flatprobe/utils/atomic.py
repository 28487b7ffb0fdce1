"""Atomic writing of files, and a digest that notices a changed bit."""

import errno
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

UNSEALED = "sha256:" + 64 * "0"  # stands in the place of a file's digest while the digest is computed
_count = itertools.count()


def digest_of(files: Sequence[Path]) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it, or that of the digests of several files."""
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@contextmanager
def write_beside(path: Path) -> Iterator[Path]:
    """A temporary path that replaces the path if the block succeeds.

    Missing folders are made. The temporary file is locked while the block runs, which tells it from the file of a
    killed process.

    Raises:
        OSError: if the file cannot be written (disk full, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_count)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as held:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(held, fcntl.LOCK_EX)
            try:
                yield temporary
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        kept = "the earlier file is kept" if path.exists() else "nothing was left there"
        msg = (
            f"{path} could not be written ({error.strerror or error}), and {kept}. Free some space, or give a writable "
            "folder"
        )
        raise OSError(error.errno or errno.EIO, msg) from error


def check_writable(folder: Path) -> None:
    """Check that files can be written in the folder; a missing folder is made.

    Raises:
        OSError: if no file can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as opened:
            opened.write(b"x")
    except OSError as error:
        msg = f"{folder} must be writable, got: {error.strerror or error}. Choose another folder"
        raise OSError(error.errno or errno.EIO, msg) from error


@contextmanager
def lock(path: Path) -> Iterator[BinaryIO]:
    """Hold a file's lock within the block, waiting for another process that holds it; the file stays.

    The lock ends with the process that holds it. Without locks in the file system, nothing is waited for.

    Yields:
        The file, open for writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as held:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(held, fcntl.LOCK_EX)
        yield held


def leftovers(path: Path) -> list[Path]:
    """The temporary files beside the path, of writers that were killed or are at work."""
    return sorted(path.parent.glob(f".{path.name}.*.tmp"))


def is_abandoned(temporary: Path) -> bool:
    """True if the writer of the temporary file has ended, and its lock with it."""
    try:
        with temporary.open("r+b") as opened:
            if fcntl is not None:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def add_seal(content: bytes) -> bytes:
    """The content with its SHA-256 in the place of `UNSEALED`."""
    return content.replace(UNSEALED.encode(), f"sha256:{hashlib.sha256(content).hexdigest()}".encode(), 1)


def is_intact(content: memoryview, position: int) -> bool:
    """True if the content is as it was sealed, with the seal at `position`."""
    end = position + len(UNSEALED)
    digest = hashlib.sha256(content[:position])
    digest.update(UNSEALED.encode())
    digest.update(content[end:])
    return content[position:end] == f"sha256:{digest.hexdigest()}".encode()
