"""Rounding of the loss in a search: what half precision resolves, and what it drowns."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.data import LabelledData


def trained_mlp() -> tuple[nn.Module, LabelledData]:
    data = fp.load_data("digits", limit=300)
    run = fp.train(fp.models.mlp((1, 8, 8), widths=(32,)), data, epochs=30, learning_rate=0.1)
    return run.model, data


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_radii_in_other_precisions_are_those_of_float32_or_are_refused(dtype: torch.dtype) -> None:
    """A wide step in half precision is measured; a step that its rounding drowns is an error, not a radius."""
    model, data = trained_mlp()
    other = copy.deepcopy(model).to(dtype)
    expected = fp.flatness_radius(fp.EmpiricalRisk(model, data), epsilon=0.5, directions=4).radii
    found = fp.flatness_radius(fp.EmpiricalRisk(other, data), epsilon=0.5, directions=4).radii
    # The weights' own rounding, relative to the loss's change, and the certified 1 % of both searches.
    np.testing.assert_allclose(found, expected, rtol=0.05)
    small = fp.EmpiricalRisk(other, data)
    if dtype == torch.float64:
        assert bool(fp.flatness_radius(small, epsilon=1e-6, directions=1).reached.all())
        return
    message = rf"rounding in {str(dtype).removeprefix('torch.')} must be at most .*model\.float\(\)"
    with pytest.raises(ValueError, match=message):
        fp.flatness_radius(small, epsilon=1e-6, directions=1)
