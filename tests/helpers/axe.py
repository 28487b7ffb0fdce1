"""axe-core, which finds what a page keeps from people with disabilities; from npm, kept in the user's cache."""

import hashlib
import os
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

_VERSION = "4.10.2"
_SHA256 = "9ea2d2d6917da998122bdacfd3b473e31ead53f4b87146c716a12edf89158100"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flatprobe-tests"


@cache
def script() -> str | None:
    """The text of the script; None where npm or the registry cannot be had."""
    package = _CACHE / f"axe-core-{_VERSION}.tgz"
    if not package.is_file():
        npm = shutil.which("npm")
        if npm is None:
            return None
        _CACHE.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", f"axe-core@{_VERSION}", "--silent", "--pack-destination", str(_CACHE)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=_CACHE)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            return None
    assert hashlib.sha256(package.read_bytes()).hexdigest() == _SHA256
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()
