"""Interactive pictures: plotly's figures hold the values of the results."""

import dataclasses
import re
import sys

import numpy as np
import pytest
import torch

from flatprobe.plotting import interactive
from tests.plotting.test_curvature import slice_of
from tests.plotting.test_plotting import flatness, interpolation

plotly = pytest.importorskip("plotly")


def test_a_triangle_is_a_surface_of_its_points_with_the_weights_at_the_pointer() -> None:
    result = interpolation()
    surface, corners = interactive.figure(result).data
    np.testing.assert_array_equal(surface.z, result.loss)
    np.testing.assert_array_equal(surface.intensity, np.log10(result.loss.numpy()))
    np.testing.assert_array_equal(surface.customdata, result.coefficients)
    assert list(corners.text) == ["w1", "w2", "w3"]
    for place, name in enumerate(corners.text):  # each corner is where its network is
        corner = int(result.coefficients[:, place].argmax())
        assert (surface.x[corner], surface.y[corner]) == pytest.approx((corners.x[place], corners.y[place])), name
    accuracy = interactive.figure(result, quantity="accuracy").data[0]
    np.testing.assert_array_equal(accuracy.z, result.accuracy)


def test_surfaces_share_height_and_colours_and_leave_out_what_is_not_finite() -> None:
    results = {"a": slice_of(bad=True), "b": slice_of(base=2.0), "c": slice_of()}
    figure = interactive.figure(results)
    assert len({(own.cmin, own.cmax) for own in figure.data}) == 1
    for name in ("scene", "scene2", "scene3"):
        assert figure.layout[name].zaxis.range == pytest.approx((np.log10(0.02), np.log10(4.0)))
    assert np.isnan(figure.data[0].z).sum() == 2
    np.testing.assert_array_equal(figure.data[1].z, results["b"].loss)
    assert [own.text for own in figure.layout.annotations] == ["a", "b", "c"]


def test_lines_are_the_results_in_their_order() -> None:
    shuffled = torch.randperm(9, generator=torch.Generator("cpu").manual_seed(0))
    result = interpolation(2)
    mixed = dataclasses.replace(
        result, coefficients=result.coefficients[shuffled], loss=result.loss[shuffled], error=result.error[shuffled]
    )
    (line,) = interactive.figure({"<b>net</b>": mixed}).data
    np.testing.assert_array_equal(line.x, result.coefficients[:, 1])
    np.testing.assert_array_equal(line.y, result.loss)
    assert line.name == "&lt;b&gt;net&lt;/b&gt;"
    assert len(interactive.figure({"a": slice_of(1), "b": slice_of(1)}).data) == 2


def test_a_fragment_is_the_same_each_time_without_the_script() -> None:
    text = interactive.html(interpolation())
    assert text == interactive.html(interpolation())
    assert len(text) < 50_000
    assert re.search(r'id="landscape-[0-9a-f]{12}"', text)
    assert interactive.html(slice_of()) != text
    assert len(interactive.script()) > 1_000_000


def test_what_has_no_interactive_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="expected Interpolation or RandomSlice"):
        interactive.figure(flatness([1.0]))
    with pytest.raises(ValueError, match="all lines, or all over triangles or planes"):
        interactive.figure({"a": slice_of(1), "b": slice_of(2)})
    monkeypatch.setitem(sys.modules, "plotly.subplots", None)
    with pytest.raises(ImportError, match=r"pip install 'flatprobe\[interactive\]'"):
        interactive.figure(slice_of())
