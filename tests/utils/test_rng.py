"""Global random states."""

import random

import numpy as np
import torch

from flatprobe.utils import rng


def test_global_random_states_are_kept() -> None:
    drawn = []
    for _ in range(2):
        with rng.keep_global_states():
            drawn.append((np.random.rand(), random.random(), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
