"""The picture of layer norms shows every norm of every layer."""

import dataclasses

import numpy as np
import pytest
import torch

import flatprobe as fp
from flatprobe.plotting import weight_norms
from tests.helpers.cases import cnn, data_for, mlp


def test_every_layer_of_every_network_is_drawn() -> None:
    results = {"mlp": fp.weight_norms(mlp(), (1, 8, 8)), "cnn": fp.weight_norms(cnn(), (1, 8, 8))}
    ax = weight_norms.draw(results)
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}
    for name, result in results.items():
        np.testing.assert_array_equal(drawn[name], result.of("spectral").numpy())
        np.testing.assert_array_equal(drawn[f"{name} reshaped"], result.of("reshaped_spectral").numpy())
    assert ax.get_yscale() == "linear"
    spread = dataclasses.replace(results["mlp"], layers=results["mlp"].layers * torch.tensor([[1.0]] + [[20.0]] * 2))
    assert weight_norms.draw(spread).get_yscale() == "log"  # over a factor of ten


def test_layers_are_named_where_the_networks_agree() -> None:
    result = fp.weight_norms(cnn(), (1, 8, 8))
    ax = weight_norms.draw({"a": result, "b": result}, groups={"a": "one", "b": "one"})
    assert tuple(label.get_text() for label in ax.get_xticklabels()) == result.names


def test_other_results_are_refused() -> None:
    with pytest.raises(TypeError, match="expected WeightNorms"):
        weight_norms.draw(fp.functional_margins(cnn(), data_for((1, 8, 8), samples=4)))
