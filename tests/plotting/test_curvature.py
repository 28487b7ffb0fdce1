"""Pictures of slices, curvature and gradient noise: what is drawn is what the results hold, nothing is dropped."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from flatprobe.plotting import gradient_noise, png, sharpness, slices
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.probes.slices import RandomSlice
from flatprobe.report import report
from flatprobe.studies.headlines import headline
from flatprobe.utils import rng
from flatprobe.utils.results import settings
from tests.plotting.test_plotting import interpolation

SUBJECT = {"network": {"class": "MLP"}, "data": {"source": {"name": "made up"}, "samples": 1000}}
GROUPS = {"natural 0": "natural", "random 0": "random"}


def slice_of(dimensions: int = 2, *, bad: bool = False, base: float = 0.02) -> RandomSlice:
    axis = torch.linspace(-1, 1, 7, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(*[axis] * dimensions, indexing="ij"), -1)
    loss = base + points.square().sum(-1)
    if bad:
        loss[(0,) * dimensions] = math.nan
        loss[(-1,) * dimensions] = math.inf
    given = settings("random_slice", SUBJECT, dimensions=dimensions, law="filter", extent=1.0, steps=7)
    return RandomSlice(coefficients=points, loss=loss, error=loss / 4, cosine=0.0, frozen=(), settings=given)


def noise_of(seed: int, size: int = 128) -> GradientNoise:
    noise = torch.randn(300, 20, generator=rng.generator(seed), dtype=torch.float64) * torch.arange(1, 21)
    given = settings("gradient_noise", SUBJECT, batch_size=size)
    return GradientNoise(
        noise=noise, components=tuple(map(str, range(20))), gradient=torch.ones(20).double(),
        squared_lengths=noise.square().sum(1), gradient_norm=2.0, inflation=128.0, live=500, settings=given,
    )  # fmt: skip


def curvature(kind: type, values: list[float]) -> HessianEigenvalues | HessianTrace | WorstCaseSharpness:
    column = torch.tensor(values, dtype=torch.float64)
    if kind is HessianEigenvalues:
        given = settings("hessian_eigenvalues", SUBJECT, which="largest")
        layers = ("all",) * len(values)
        return kind(eigenvalues=column, residuals=column / 1e6, layers=layers, products=15, settings=given)
    if kind is HessianTrace:
        return kind(forms=column[:, None], layers=("1",), settings=settings("hessian_trace", SUBJECT))
    given = settings("worst_case_sharpness", SUBJECT, law="l2", radius=0.05)
    return kind(
        increases=column, lengths=column, passes=torch.full((len(values),), 3), loss=0.1, radius=0.05, frozen=(),
        settings=given,
    )  # fmt: skip


def test_lines_are_the_results_and_what_is_not_finite_is_a_cross_at_the_edge() -> None:
    found = {"natural 0": slice_of(1), "random 0": slice_of(1, bad=True)}
    ax = slices.draw(found, groups=GROUPS)
    for own, result in zip(ax.get_lines(), found.values(), strict=True):
        known = result.loss.isfinite()
        np.testing.assert_array_equal(np.asarray(own.get_ydata())[known], result.loss[known])
        assert np.isnan(np.asarray(own.get_ydata())[~known]).all()
    (crosses,) = ax.collections
    assert np.asarray(crosses.get_offsets())[:, 0].tolist() == [-1.0, 1.0]
    assert ax.get_yscale() == "log"


def test_regression_points_that_are_not_finite_are_a_hole_with_crosses() -> None:
    """Landscaper fills them with the mean."""
    ax = slices.draw(slice_of(bad=True))
    (crosses,) = [own for own in ax.collections if own.get_label() == "not finite"]
    assert np.asarray(crosses.get_offsets()).tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    assert not [own for own in slices.draw(slice_of()).collections if own.get_label() == "not finite"]
    assert png(ax).startswith(b"\x89PNG")


@pytest.mark.parametrize("dimensions", [1, 2])
def test_regression_zero_is_accepted_as_a_limit(dimensions: int) -> None:
    """loss-landscape takes a lower bound of 0 for one that was not given."""
    ax = slices.draw(slice_of(dimensions), limits=(0, 1.5))
    if dimensions == 1:
        assert ax.get_ylim()[0] == 0
        assert ax.get_yscale() == "linear"
    else:
        levels = ax.collections[0].norm
        assert (levels.vmin, levels.vmax) == (0, 1.5)
        assert not isinstance(levels, LogNorm)
    accuracy = slices.draw(slice_of(dimensions), quantity="accuracy", limits=(0, 1))
    assert png(accuracy).startswith(b"\x89PNG")


def test_planes_share_one_scale_and_constant_ones_are_drawn() -> None:
    figure = slices.draw_row({"natural 0": slice_of(), "random 0": slice_of(base=2.0)})
    assert isinstance(figure, Figure)
    norms = [ax.collections[0].norm for ax in figure.axes[:2]]
    assert norms[0] is norms[1]
    assert (norms[0].vmin, norms[0].vmax) == (0.02, 4.0)
    flat = slice_of()
    flat.loss.fill_(0.0)
    assert png(slices.draw(flat)).startswith(b"\x89PNG")


def test_gradient_noise_is_a_density_in_each_components_own_deviations() -> None:
    found = {"natural 0": noise_of(0), "random 0": noise_of(1)}
    ax = gradient_noise.draw(found, groups=GROUPS)
    edges, width = np.linspace(-6, 6, 50), 12 / 49
    for own, result in zip(ax.lines, found.values(), strict=False):
        np.testing.assert_allclose(own.get_xdata(), edges[:-1] + width / 2, atol=1e-12)
        assert float(own.get_ydata().sum() * width) == pytest.approx(1, abs=1e-4)
        scaled = (result.noise / result.noise.square().mean(0).sqrt()).flatten().numpy()
        expected = np.histogram(scaled.clip(-6, 6), edges)[0]
        filled = expected > 0  # an empty bin is below the axis
        np.testing.assert_allclose((own.get_ydata() * len(scaled) * width)[filled], expected[filled], rtol=1e-12)
        assert (own.get_ydata()[~filled] < ax.get_ylim()[0]).all()
    assert ax.get_yscale() == "log"
    with pytest.raises(ValueError, match="different values of batch_size"):
        gradient_noise.draw({"a": noise_of(0), "b": noise_of(1, size=64)})


@pytest.mark.parametrize("kind", [HessianEigenvalues, HessianTrace, WorstCaseSharpness])
def test_curvature_is_a_row_of_points_per_network(kind: type) -> None:
    found = {"natural 0": curvature(kind, [3.0, 2.0]), "random 0": curvature(kind, [5.0, 4.5])}
    ax = sharpness.draw(found, groups=GROUPS)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["natural 0", "random 0"]
    if kind is HessianTrace:
        drawn = [np.asarray(bars[0].get_xdata()).tolist() for bars in ax.containers]
        ends = [sorted({*bars[2][0].get_segments()[0][:, 0].tolist()}) for bars in ax.containers]
        assert ends == [pytest.approx([2.0, 3.0]), pytest.approx([4.5, 5.0])]  # the standard error of two draws
    else:
        drawn = [np.asarray(own.get_offsets())[:, 0].tolist() for own in ax.collections]
    assert drawn == ([[2.5], [4.75]] if kind is HessianTrace else [[3.0, 2.0], [5.0, 4.5]])
    assert ax.get_xlim()[0] == 0
    assert ax.get_xlabel().startswith("← flatter")


def test_bad_pictures() -> None:
    with pytest.raises(ValueError, match=r"limits must be two finite numbers in ascending order, got \(2, 1\)"):
        slices.draw(slice_of(), limits=(2, 1))
    with pytest.raises(ValueError, match="2 slices, not all of them lines; expected lines, or one plane"):
        slices.draw({"a": slice_of(), "b": slice_of(1)})
    with pytest.raises(ValueError, match="the slice 'a' is a line; expected planes"):
        slices.draw_row({"a": slice_of(1)})
    with pytest.raises(ValueError, match="quantity must be one of 'loss', 'accuracy', got 'margin'"):
        slices.draw(slice_of(), quantity="margin")
    empty = slice_of()
    empty.loss.fill_(math.nan)
    with pytest.raises(ValueError, match="no point has a finite loss"):
        slices.draw(empty)
    for draw in (slices.draw, gradient_noise.draw, sharpness.draw):
        with pytest.raises(TypeError, match="the result is of type Interpolation; expected"):
            draw(interpolation())
        with pytest.raises(ValueError, match="no results to draw"):
            draw({})


def test_the_report_has_a_section_and_a_headline_for_each(tmp_path) -> None:
    records = {
        "random_slice": {"natural 0": slice_of(1, bad=True), "random 0": slice_of(1)},
        "random_slice (plane)": {"natural 0": slice_of(bad=True), "random 0": slice_of()},
        "gradient_noise": {"natural 0": noise_of(0), "random 0": noise_of(1)},
    } | {
        name: {"natural 0": curvature(kind, [3.0, 2.0]), "random 0": curvature(kind, [5.0, 4.0])}
        for name, kind in (
            ("hessian_eigenvalues", HessianEigenvalues),
            ("hessian_trace", HessianTrace),
            ("worst_case_sharpness", WorstCaseSharpness),
        )
    }
    page = report(records, tmp_path / "page.html", groups=GROUPS).read_text(encoding="utf-8")
    assert page.count("<svg") == len(records)
    for words in ("noise scale", "≥ 3", "Hessian products", "not finite"):
        assert words in page
    values = {name: headline(results["natural 0"]).value for name, results in records.items()}
    assert values["hessian_eigenvalues"] == 3.0
    assert values["hessian_trace"] == 2.5
    assert values["worst_case_sharpness"] == 3.0
    assert values["gradient_noise"] == noise_of(0).noise_scale
    assert values["random_slice"] == slice_of(1, bad=True).summary()["max_increase"]
