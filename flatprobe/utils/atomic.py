"""Files that are never half written, and that notice a changed bit."""

import errno
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

UNSEALED = "sha256:" + 64 * "0"  # what a file's own digest is taken over, in the place of the digest
_count = itertools.count()


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A temporary name beside the path, renamed onto it when the block ends well and removed when it does not.

    Missing folders are made. The temporary file is locked while the block runs, so that others can tell it from what a
    killed process left.

    Raises:
        OSError: if it cannot be written (disk full, no permission), with the path and what is kept.
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
        kept = "the file that was there before is kept" if path.exists() else "nothing was left there"
        msg = (
            f"{path} could not be written ({error.strerror or error}); {kept}: free some space, or give a folder that "
            "can be written to"
        )
        raise OSError(error.errno or errno.EIO, msg) from error


def check_writable(folder: Path) -> None:
    """Files can be written in the folder, which is made if it is missing: asked before hours of measuring.

    Raises:
        OSError: if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as opened:
            opened.write(b"x")
    except OSError as error:
        msg = (
            f"nothing can be written in {folder} ({error.strerror or error}); expected a folder that takes files: "
            "choose another"
        )
        raise OSError(error.errno or errno.EIO, msg) from error


def leftovers(path: Path) -> list[Path]:
    """The temporary files beside the path whose writers were killed, or are at work."""
    return sorted(path.parent.glob(f".{path.name}.*.tmp"))


def abandoned(temporary: Path) -> bool:
    """Whether the temporary file's writer has ended: a writer at work holds its lock."""
    try:
        with temporary.open("r+b") as opened:
            if fcntl is not None:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sealed(content: bytes) -> bytes:
    """The content, which holds `UNSEALED` once, with its own SHA-256 in that place."""
    return content.replace(UNSEALED.encode(), f"sha256:{hashlib.sha256(content).hexdigest()}".encode(), 1)


def is_intact(content: memoryview, position: int) -> bool:
    """Whether the content is what was sealed, given where its seal begins."""
    end = position + len(UNSEALED)
    digest = hashlib.sha256(content[:position])
    digest.update(UNSEALED.encode())
    digest.update(content[end:])
    return content[position:end] == f"sha256:{digest.hexdigest()}".encode()
