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
    drawn = {line.get_label(): np.asarray(line.get_xdata()) for line in ax.lines}
    for name, result in results.items():
        np.testing.assert_array_equal(drawn[name], result.of("spectral").numpy())
        np.testing.assert_array_equal(drawn[f"{name} reshaped"], result.of("reshaped_spectral").numpy())
    assert ax.get_xscale() == "linear"
    assert ax.get_xlim()[0] == 0
    spread = dataclasses.replace(results["mlp"], layers=results["mlp"].layers * torch.tensor([[1.0]] + [[20.0]] * 2))
    assert weight_norms.draw(spread).get_xscale() == "log"  # over a factor of ten


def test_layers_are_named_where_the_networks_agree() -> None:
    result = fp.weight_norms(cnn(), (1, 8, 8))
    ax = weight_norms.draw({"a": result, "b": result}, groups={"a": "one", "b": "one"})
    assert tuple(label.get_text() for label in ax.get_yticklabels()) == result.names


def test_layers_have_no_prefix_of_the_normalization_around_the_network() -> None:
    plain, wrapped = (fp.weight_norms(own, (1, 8, 8)) for own in (cnn(), fp.Normalised(cnn(), 0.5, 0.5).eval()))
    ax = weight_norms.draw({"plain": plain, "wrapped": wrapped})
    assert wrapped.names[0].startswith("network.")
    assert tuple(label.get_text() for label in ax.get_yticklabels()) == plain.names


def test_many_networks_have_a_box_per_layer_and_group() -> None:
    results = {f"n{k}": fp.weight_norms(cnn(seed=k), (1, 8, 8)) for k in range(8)}
    ax = weight_norms.draw(results, groups={name: "even" if int(name[1]) % 2 == 0 else "odd" for name in results})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["even", "odd"]
    norms = np.stack([result.of("spectral").numpy() for result in results.values()])
    lines = [sorted({*np.asarray(own.get_xdata()).round(9).tolist()}) for own in ax.lines]
    medians = [own[0] for own in lines if len(own) == 1]
    for part in (norms[::2], norms[1::2]):
        assert {*np.median(part, 0).round(9).tolist()} <= {*medians}


def test_other_results_are_refused() -> None:
    with pytest.raises(TypeError, match="expected WeightNorms"):
        weight_norms.draw(fp.functional_margins(cnn(), data_for((1, 8, 8), samples=4)))
