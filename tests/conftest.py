"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def datasets_folder() -> Path:
    """The folder with mnist and cifar10; without it tests are skipped, except in CI, where they fail."""
    folder = Path(os.environ.get("FLATPROBE_DATASETS", "")).expanduser()
    missing = [name for name in ("mnist", "cifar10") if not (folder / name).is_dir()]
    if "FLATPROBE_DATASETS" not in os.environ or missing:
        reason = (
            f"FLATPROBE_DATASETS is {os.environ.get('FLATPROBE_DATASETS')!r}; expected a folder with mnist and cifar10"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
