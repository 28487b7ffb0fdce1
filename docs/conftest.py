"""The examples of the pages run in an empty folder, since some of them write files."""

from pathlib import Path

import pytest

from tests.helpers import wheels

FOREIGN = "foreign-checkpoint.md"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    if request.node.path.name == FOREIGN:
        wheels.foreign_page(request.node.path, tmp_path)
