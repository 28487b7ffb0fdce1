"""The picture of accuracies: filled for training, open for test, with the intervals of the result."""

import dataclasses

import numpy as np
import pytest
import torch

from flatprobe.plotting import draw
from tests.plotting.test_many_networks import assert_words_are_inside
from tests.plotting.test_plotting import flatness
from tests.plotting.test_trajectory import general


def test_points_and_intervals_are_those_of_the_result() -> None:
    results = {"a": general(1.0, 0.9), "b": general(0.95)}
    ax = draw(results)
    expected = [("a", "train_accuracy"), ("a", "test_accuracy"), ("b", "train_accuracy")]
    for bars, (name, figure) in zip(ax.containers, expected, strict=True):
        assert bars[0].get_xdata()[0] == pytest.approx(100 * results[name].summary()[figure])
        ends = bars[2][0].get_segments()[0][:, 0]
        np.testing.assert_allclose(ends, 100 * np.array(results[name].interval(figure)))
    assert [bars[0].get_fillstyle() for bars in ax.containers] == ["full", "none", "full"]
    assert ax.get_xlim() == pytest.approx((95 * results["a"].interval("test_accuracy")[0], 100.5))
    assert_words_are_inside(ax.figure)


def test_a_task_without_classes_has_losses_from_zero() -> None:
    losses = {name: dataclasses.replace(general(0.5), correct=torch.full((20,), torch.nan).double()) for name in "ab"}
    ax = draw(losses)
    assert ax.get_xlabel().startswith("← better")
    assert "mean loss" in ax.get_xlabel()
    assert ax.get_xlim()[0] == 0
    with pytest.raises(TypeError, match="expected Generalization"):
        draw(losses | {"c": flatness([1.0])})
