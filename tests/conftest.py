"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

# The tests' networks are so small that a second thread only waits for the first, and long on a busy machine.
torch.set_num_threads(1)


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
