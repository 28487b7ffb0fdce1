"""Pictures of decision regions: every point has its class's colour, boundaries are where the margin is 0."""

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.plotting import png, regions
from flatprobe.probes.decision_regions import DecisionRegions
from tests.plotting.test_plotting import margins_of


def halves(steps: int = 6) -> DecisionRegions:
    """z = (a, 1/3): class 0 where a > 1/3, which no grid point meets."""

    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[:, 0], torch.full_like(x[:, 0], 1 / 3)], 1)

    return fp.decision_regions(Halves().eval(), torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double(), extent=0, steps=steps)


def test_closed_form_boundary_between_grid_points_and_colours_of_the_classes() -> None:
    found = halves()
    ax = found.plot()
    mesh = ax.collections[0]
    assert np.array_equal(mesh.get_array().ravel(), found.classes.numpy())
    paths = [path for lines in ax.collections[1:] for path in lines.get_paths() if len(path.vertices)]
    assert paths
    for path in paths:
        assert path.vertices[:, 0] == pytest.approx(1 / 3, abs=1e-7)  # a network without weights computes in float32
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class 0", "class 1", "$x_0$", "$x_1$"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines] == [(0, 0), (1, 1)]
    assert ax.get_aspect() == 1
    assert png(ax).startswith(b"\x89PNG")


def test_property_points_that_are_not_finite_are_grey_and_named() -> None:
    class Bad(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x[:, :1] > 1.2, torch.nan, x)

    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    ax = fp.decision_regions(Bad().eval(), corners, extent=0.5, steps=5).plot(names=["one", "two"], classes=["p", "q"])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["p", "q", "not finite", "one", "two"]
    assert (ax.collections[0].get_array() == 2).sum() == 5


def test_many_points_are_dots_and_many_classes_have_a_colour_each() -> None:
    angles = torch.arange(12, dtype=torch.float64) * torch.pi / 6
    model = nn.Linear(2, 12, bias=False).double().eval()  # twelve sectors
    with torch.no_grad():
        model.weight.copy_(torch.stack([angles.cos(), angles.sin()], 1))
    points = model.weight.detach().repeat(2, 1)
    found = fp.decision_regions(model, points, steps=41)
    ax = found.plot()
    present = len(found.shares())
    assert present == 12
    colours = [patch.get_facecolor() for patch in ax.get_legend().get_patches()]
    assert len(set(colours)) == 12
    assert len(ax.lines) == 1
    assert len(ax.lines[0].get_xdata()) == 24


def test_wrong_names_are_refused() -> None:
    found = halves()
    with pytest.raises(ValueError, match="names must be one word per given point, 2, got 1"):
        regions.draw(found, names=["x"])
    with pytest.raises(ValueError, match="classes must name class 1, got 1 names"):
        regions.draw(found, classes=["x"])
    with pytest.raises(TypeError, match="expected DecisionRegions"):
        regions.draw(margins_of(0))
