"""Mutations of the package that no test notices: `python -m tests.mutations [words]`, on demand.

`mutations.toml` beside this file lists one-line changes that give a wrong number or a weaker promise. Each is made
alone in a copy of the package, whose named tests then run: they should fail. A change that survives wants a test, or a
reason in the table why it is equivalent. Nothing is written to the tree that this file lies in.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TIMEOUT = 600  # seconds; a mutation that makes a loop endless is noticed too


class Mutation(NamedTuple):
    """One change: file under flatprobe/, text that it holds once, its replacement, and tests as `room/module`."""

    file: str
    original: str
    mutant: str
    tests: str

    @property
    def paths(self) -> list[str]:
        """The files of the tests."""
        parts = [word.rpartition("/") for word in self.tests.split()]
        return [f"tests/{folder}/test_{name}.py" for folder, _, name in parts]


def main() -> None:
    """Run the mutations whose line holds all the words, and print each one's outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="take the mutations whose file, texts or tests hold all of them")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_suffix(".toml"))
    asked = parser.parse_args()
    table = [Mutation(*entry) for entry in tomllib.loads(asked.table.read_text())["mutations"]]
    chosen = [entry for entry in table if all(word in " ".join(entry) for word in asked.words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("flatprobe", "tests", "analyses", "figures"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy / name)
        paths = sorted({path for entry in chosen for path in entry.paths})
        if not paths or (before := _outcome(copy, paths)) != "survives":
            sys.exit(f"the unchanged package {before} in its tests; expected them to pass" if paths else "no mutation")
        counts: dict[str, int] = {}
        for entry in chosen:
            outcome = _tried(copy, entry)
            counts[outcome] = counts.get(outcome, 0) + 1
            print(f"{outcome:8}  {entry.file}: {entry.original}  ->  {entry.mutant}  [{entry.tests}]", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))


def _tried(copy: Path, entry: Mutation) -> str:
    file = copy / "flatprobe" / entry.file
    text = file.read_text() if file.exists() else ""
    if text.count(entry.original) != 1:
        return "stale"  # moved, rewritten, or there several times
    file.write_text(text.replace(entry.original, entry.mutant))
    try:
        return _outcome(copy, entry.paths)
    finally:
        file.write_text(text)


def _outcome(copy: Path, paths: list[str]) -> str:
    """What became of it: pytest's exit code 1 says that a test has failed, another one that none was run."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, timeout=TIMEOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    return {0: "survives", 1: "fails"}.get(done.returncode, "breaks")


if __name__ == "__main__":
    main()
