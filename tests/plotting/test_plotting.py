"""Pictures: what is drawn is what the results hold, nothing is dropped, and the caller's matplotlib is left alone."""

import dataclasses
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from flatprobe.plotting import canvas, draw, has_picture, histogram, line, png, radii, triangle
from flatprobe.plotting import curve as curve_plot
from flatprobe.plotting.names import COLOURS, looks
from flatprobe.plotting.scale import FLOOR
from flatprobe.probes.coefficients import segment, simplex
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.margins import Margins
from flatprobe.probes.per_sample import PerSample
from flatprobe.probes.robustness import Robustness
from flatprobe.risk.empirical import Risk
from flatprobe.utils import rng
from flatprobe.utils.results import settings

INFINITE = float("inf")


def flatness(values: list[float], **arguments: object) -> FlatnessRadii:
    given = {"epsilon": 0.05, "law": "isotropic", "objective": "loss", "parameters": ["w"], "max_radius": 2166.5}
    column = torch.tensor(values, dtype=torch.float64)
    return FlatnessRadii(
        radii=column, lower=column * 0.99, upper=column * 1.01, evaluations=torch.full((len(values),), 4),
        excursions=torch.zeros(len(values), dtype=torch.int64), probing_ratio=torch.full_like(column, 1.2),
        start=Risk(0.02, 0.0), frozen=(), settings=settings("flatness_radius", SUBJECT, **(given | arguments))
        | {"start": {"loss": 0.02, "error": 0.0}, "frozen": []},
    )  # fmt: skip


def interpolation(endpoints: int = 3, *, peak: float = 2.0) -> Interpolation:
    points = simplex(3, steps=8) if endpoints == 3 else segment(steps=9)
    height = points.prod(1) * endpoints**endpoints
    given = settings("interpolate", SUBJECT, endpoints=endpoints)
    return Interpolation(coefficients=points, loss=0.02 + peak * height, error=0.6 * height, settings=given)


def margins_of(seed: int, probe: str = "functional_margins", **arguments: object) -> Margins:
    values = 3 + 2 * torch.randn(200, generator=rng.generator(seed), dtype=torch.float64)
    return Margins(values=values, labels=torch.zeros(200).long(), settings=settings(probe, SUBJECT, **arguments))


def norms(seed: int, scale: float = 20.0, **arguments: object) -> JacobianNorms:
    values = scale * (1 + torch.rand(150, generator=rng.generator(seed), dtype=torch.float64))
    given = {"norm": "spectral", "outputs": "logits", "method": "gram"} | arguments
    return JacobianNorms(
        values=values, labels=torch.zeros(150).long(), settings=settings("jacobian_norms", SUBJECT, **given)
    )


def curve(seed: int) -> Robustness:
    gammas = torch.tensor([0.0, 0.1, 0.2, 0.4], dtype=torch.float64)
    noise = 0.02 * torch.rand(4, 5, generator=rng.generator(seed), dtype=torch.float64)
    given = settings("gaussian_robustness", SUBJECT, gammas=gammas.tolist(), draws=5) | {"samples": 1000}
    return Robustness(gammas=gammas, error=2 * gammas[:, None] * (0.5 + noise), samples=1000, settings=given)


SUBJECT = {"network": {"class": "MLP"}, "data": {"source": {"name": "made up"}, "samples": 1000}}
GROUPS = {"natural 0": "natural", "natural 1": "natural", "random 0": "random"}


def collection(ax: Axes, label: str) -> np.ndarray:
    (found,) = [own for own in ax.collections if own.get_label() == label]
    return np.asarray(found.get_offsets())


def heights(ax: Axes) -> np.ndarray:
    """Heights of the steps of seaborn's histogram."""
    (outline,) = ax.collections
    return np.asarray(outline.get_paths()[0].vertices)[:, 1]


def test_radii_are_the_points_and_censored_ones_are_triangles_that_are_counted() -> None:
    results = {"natural 0": flatness([3.0, INFINITE, 5.0, INFINITE]), "natural 1": flatness([4.0, 6.0, 7.0])}
    ax = radii.draw(results)
    assert collection(ax, "natural 0")[:, 0].tolist() == [3.0, 5.0]
    assert collection(ax, "natural 1")[:, 0].tolist() == [4.0, 6.0, 7.0]
    assert {round(place) for place in collection(ax, "natural 1")[:, 1]} == {1}
    assert len(collection(ax, "censored natural 0")) == 2
    assert not [own for own in ax.collections if own.get_label() == "censored natural 1"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["natural 0\n2 of 4 beyond 2,170", "natural 1"]
    assert ax.get_xlim()[0] == 0
    assert ax.get_xlim()[1] > 7
    assert "in weight space" in ax.get_xlabel()
    assert ax.get_xlabel().split("\n")[0].endswith("flatter →")
    assert "filter law" in radii.draw(flatness([1.0], law="filter")).get_xlabel()


def test_radii_that_were_all_censored_are_still_there() -> None:
    ax = radii.draw(flatness([INFINITE] * 3))
    assert len(collection(ax, "censored ")) == 3
    assert [text.get_text() for text in ax.get_yticklabels()] == ["3 of 3 beyond 2,170"]


def test_radii_over_a_factor_of_ten_are_on_a_logarithmic_axis() -> None:
    assert radii.draw(flatness([1.0, 9.0])).get_xscale() == "linear"
    ax = radii.draw(flatness([1.0, 30.0, INFINITE]))
    assert ax.get_xscale() == "log"
    assert ax.get_xlim()[0] < 1 < 30 < ax.get_xlim()[1]


def test_networks_of_a_group_share_a_colour_and_differ_in_line() -> None:
    ax = curve_plot.draw({name: curve(seed) for seed, name in enumerate(GROUPS)}, groups=GROUPS)
    lines = ax.get_lines()
    assert [to_hex(own.get_color()).upper() for own in lines] == [COLOURS[0], COLOURS[0], COLOURS[1]]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    legend = ax.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["natural", "natural 0", "natural 1", "random", "random 0", ""]
    single = curve_plot.draw(curve(0))
    assert single.get_legend() is None


def test_robustness_curve_and_band_are_the_results() -> None:
    result = curve(3)
    ax = curve_plot.draw(result)
    (mean,) = ax.get_lines()
    np.testing.assert_array_equal(mean.get_xdata(), result.gammas)
    np.testing.assert_array_equal(mean.get_ydata(), result.mean)
    lower, upper = result.band()
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for gamma, low, high in zip(result.gammas, lower, upper, strict=True):
        own = np.asarray(corners)[np.asarray(corners)[:, 0] == float(gamma), 1]
        assert {float(low), float(high)} <= set(own.tolist())
    assert "pixel scale" in ax.get_xlabel()


@pytest.mark.parametrize("make", [margins_of, norms])
def test_distributions_of_a_few_networks_are_the_fractions_at_or_below_each_value(make) -> None:
    results = {name: make(seed) for seed, name in enumerate(GROUPS)}
    ax = histogram.draw(results, groups=GROUPS)
    curves = {own.get_label(): own for own in ax.lines if own.get_label() in GROUPS}
    assert list(curves) == list(GROUPS)
    for name, result in results.items():
        for x, y in zip(*curves[name].get_data(), strict=True):
            assert y == pytest.approx(float((result.values <= x).double().mean()))
    first, second, third = (own.get_color() for own in curves.values())
    assert first == second != third


def test_a_histogram_of_one_network_holds_every_sample() -> None:
    ax = histogram.draw(margins_of(0))
    steps = heights(ax)
    edges = np.linspace(float(margins_of(0).values.min()), float(margins_of(0).values.max()), 15)
    expected = np.histogram(margins_of(0).values.numpy(), edges)[0] / 200  # 14 bins, the root of 200
    assert set(expected.round(12)) <= set(steps.round(12))
    equal = dataclasses.replace(norms(0), values=torch.full((150,), 4.0, dtype=torch.float64))
    assert heights(histogram.draw(equal)).max() == 1


def test_margins_mark_zero_and_say_what_lies_left_of_it() -> None:
    ax = histogram.draw(margins_of(0))
    (zero,) = ax.get_lines()
    assert list(zero.get_xdata()) == [0, 0]
    assert ax.get_xlabel() == "functional margin (logits; below 0: misclassified)"
    right = dataclasses.replace(margins_of(0), values=margins_of(0).values.abs())
    assert histogram.draw(right).get_xlabel() == "functional margin (logits)"


def test_saturated_scores_are_marked_on_an_axis_that_begins_at_zero() -> None:
    given = margins_of(0, "scores", outputs="softmax")
    ax = histogram.draw(dataclasses.replace(given, values=2**0.5 - given.values.abs() / 1e6))
    assert ax.get_xlim()[0] == 0 < 2**0.5 < ax.get_xlim()[1]
    assert "√2, where scores saturate" in ax.get_xlabel()
    assert [own.get_xdata()[0] for own in ax.lines] == [0, 2**0.5]
    assert "saturate" not in histogram.draw(dataclasses.replace(given, values=given.values.abs() / 1e6)).get_xlabel()


def test_norms_over_a_factor_of_ten_are_on_a_logarithmic_axis() -> None:
    assert histogram.draw(norms(0)).get_xscale() == "linear"
    assert histogram.draw(norms(0)).get_xlim()[0] == 0
    ax = histogram.draw({"a": norms(0), "b": norms(1, scale=2000.0)})
    assert ax.get_xscale() == "log"
    assert ax.get_xlim()[0] < 20 < 4000 < ax.get_xlim()[1]


def test_line_is_the_loss_and_its_arrow_the_barrier() -> None:
    result = interpolation(2)
    ax = line.draw(result)
    (drawn,) = ax.get_lines()
    np.testing.assert_array_equal(drawn.get_xdata(), result.coefficients[:, 1])
    np.testing.assert_array_equal(drawn.get_ydata(), result.loss)
    arrow, words = ax.texts
    assert arrow.xy == (0.5, pytest.approx(float(result.loss[4])))
    assert arrow.xy[1] - arrow.xyann[1] == pytest.approx(result.barrier)
    assert words.get_text() == f"barrier {result.barrier:.3g}"
    accuracy = line.draw(result, quantity="accuracy")
    np.testing.assert_array_equal(accuracy.get_lines()[0].get_ydata(), result.accuracy)
    assert not accuracy.texts


def test_line_shows_what_is_not_finite() -> None:
    loss = interpolation(2).loss.clone()
    loss[3], loss[5] = INFINITE, float("nan")
    ax = line.draw(dataclasses.replace(interpolation(2), loss=loss))
    (crosses,) = ax.collections
    assert np.asarray(crosses.get_offsets())[:, 0].tolist() == [3 / 8, 5 / 8]
    assert not ax.texts
    assert np.isnan(ax.get_lines()[0].get_ydata()).sum() == 2


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_landscapes_in_a_row_share_limits_and_colours(quantity: str) -> None:
    results = {"natural": interpolation(peak=0.3), "random": interpolation(peak=3.0)}
    figure = triangle.draw_row(results, quantity=quantity)
    first, second, bar = figure.axes
    assert [first.get_title(), second.get_title()] == ["natural", "random"]
    limits = {panel.collections[0].get_clim() for panel in (first, second)}
    values = torch.cat([getattr(result, quantity) for result in results.values()])
    assert limits == {(float(values.min()), float(values.max()))}
    np.testing.assert_array_equal(first.collections[0].levels, second.collections[0].levels)
    assert quantity in bar.get_xlabel()


def test_landscape_below_the_floor_says_so() -> None:
    result = interpolation()
    low = dataclasses.replace(result, loss=result.loss - 0.02)
    ax = triangle.draw(low)
    assert ax.collections[0].get_clim()[0] == FLOOR
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    assert "at least 1e-06" in figure.axes[1].get_ylabel()


def test_landscape_shows_what_is_not_finite() -> None:
    result = interpolation()
    loss = result.loss.clone()
    loss[10], loss[20] = INFINITE, float("nan")
    broken = dataclasses.replace(result, loss=loss)
    ax = triangle.draw(broken)
    contours, crosses = ax.collections
    assert len(crosses.get_offsets()) == 2
    assert np.isfinite(contours.get_clim()).all()
    height = triangle.draw(broken, quantity="accuracy", surface=True)
    sheet, crosses = height.collections
    whole = triangle.draw(result, quantity="accuracy", surface=True).collections[0]
    assert len(sheet.get_facecolor()) < len(whole.get_facecolor())
    with pytest.raises(ValueError, match="no point has a finite loss"):
        triangle.draw(dataclasses.replace(result, loss=torch.full_like(loss, INFINITE)))


def test_surface_is_as_high_as_the_accuracy() -> None:
    steep = interpolation()
    level = dataclasses.replace(steep, error=0.1 + steep.error / 10)
    first, second, _ = triangle.draw_row({"a": steep, "b": level}, quantity="accuracy", surface=True).axes
    assert first.get_zlim() == second.get_zlim()
    for panel, result in ((first, steep), (second, level)):
        heights = panel.collections[0]._vec[2]
        assert {*heights.round(12)} == {*result.accuracy.numpy().round(12)}
    assert triangle.draw(steep, surface=True).get_zlabel().startswith("training loss")


def test_pictures_leave_the_callers_matplotlib_alone() -> None:
    before = dict(mpl.rcParams)
    picture = png(radii.draw(flatness([1.0, 2.0])), resolution=40)
    assert picture == png(radii.draw(flatness([1.0, 2.0])), resolution=40)
    assert picture.startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_given_axes_are_drawn_on() -> None:
    ax = Figure().add_subplot()
    assert histogram.draw(margins_of(0), ax) is ax


def test_what_cannot_be_in_one_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="no results to draw; expected at least one FlatnessRadii"):
        radii.draw({})
    with pytest.raises(TypeError, match="'b' is of type Margins; expected FlatnessRadii"):
        radii.draw({"a": flatness([1.0]), "b": margins_of(0)})
    with pytest.raises(ValueError, match="different values of law: isotropic, filter"):
        radii.draw({"a": flatness([1.0]), "b": flatness([1.0], law="filter")})
    with pytest.raises(ValueError, match="different values of norm: spectral, frobenius"):
        histogram.draw({"a": norms(0), "b": norms(1, norm="frobenius")})
    with pytest.raises(ValueError, match="functional_margins and scores; expected one of them"):
        histogram.draw({"a": margins_of(0), "b": margins_of(1, "scores", outputs="softmax")})
    with pytest.raises(ValueError, match="no group is given for 'b'"):
        radii.draw({"a": flatness([1.0]), "b": flatness([1.0])}, groups={"a": "one"})
    with pytest.raises(ValueError, match="between 3 endpoints, the corners of a triangle, got 2"):
        triangle.draw(interpolation(2))
    with pytest.raises(ValueError, match="'b' must be between 2 endpoints, got 3"):
        line.draw({"a": interpolation(2), "b": interpolation(3)})
    with pytest.raises(ValueError, match="quantity"):
        triangle.draw(interpolation(), quantity="margin")
    with pytest.raises(TypeError, match="ax must be three-dimensional, got Axes"):
        triangle.draw(interpolation(), Figure().add_subplot(), surface=True)
    with pytest.raises(TypeError, match="ax must be ternary, got Axes"):
        triangle.draw(interpolation(), Figure().add_subplot())


def test_draw_finds_the_picture_by_the_class_of_the_results() -> None:
    assert "spectral norm of the input Jacobian" in draw({"a": norms(0)}).get_xlabel()
    assert draw(interpolation(2), quantity="accuracy").get_ylabel() == "training accuracy"
    assert draw(interpolation(3)).collections[0].get_clim() == (0.02, pytest.approx(2.02, rel=0.2))
    with pytest.raises(ValueError, match="no results to draw"):
        draw({})
    unknown = PerSample(values=norms(0).values, labels=norms(0).labels, settings={})
    with pytest.raises(TypeError, match="results must be of a class that has a picture, got PerSample"):
        draw(unknown)
    with pytest.raises(TypeError, match="'b' is of type Margins; expected JacobianNorms"):
        draw({"a": norms(0), "b": margins_of(0)})


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_legend_is_above_the_axes_and_all_of_it_in_the_picture(count: int, grouped: bool) -> None:
    results = {f"{'natural' if seed < count / 2 else 'random'} {seed}": curve(seed) for seed in range(count)}
    groups = {name: name.split()[0] for name in results} if grouped else None
    ax = curve_plot.draw(results, groups=groups)
    figure, legend = ax.get_figure(root=True), ax.get_legend()
    assert isinstance(figure, Figure)
    assert legend is not None
    figure.draw_without_rendering()
    inside, axes = legend.get_window_extent(), ax.get_window_extent()
    assert inside.y0 >= axes.y1
    assert 0 <= inside.x0 < inside.x1 <= figure.bbox.width
    assert inside.y1 <= figure.bbox.height
    assert axes.height > 0.5 * 3.9 * figure.dpi


def test_in_given_axes_the_legend_is_right_of_them_and_leaves_the_place_of_the_title_free() -> None:
    figure = Figure(layout="constrained")
    ax = curve_plot.draw({"a": curve(0), "b": curve(1)}, figure.add_subplot())
    figure.draw_without_rendering()
    inside, axes = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert inside.y1 <= axes.y1
    assert axes.x1 <= inside.x0 < inside.x1 <= figure.bbox.width


def test_property_each_of_six_networks_has_a_look_of_its_own() -> None:
    names = [f"n{k}" for k in range(6)]
    for groups in (None, dict.fromkeys(names, "all"), {name: "one" if name < "n3" else "two" for name in names}):
        found = looks(names, groups)
        assert len({(own.colour, str(own.line), own.marker) for own in found.values()}) == 6
    assert {own.colour for own in looks(names, dict.fromkeys(names, "all")).values()} == {COLOURS[0]}


def test_only_what_is_more_than_a_number_has_a_picture() -> None:
    single = {"a": flatness([1.0])}
    assert not has_picture(single)
    assert not has_picture(single["a"])
    assert has_picture(flatness([1.0, 2.0]))
    assert has_picture(single | {"b": flatness([2.0])})
    assert has_picture(margins_of(0))
    assert has_picture(interpolation(2))
    assert not has_picture({})
    assert not has_picture(PerSample(values=norms(0).values, labels=norms(0).labels, settings={}))
    ones = torch.ones(4).double()
    four = dataclasses.replace(interpolation(), coefficients=torch.eye(4).double(), loss=ones, error=ones)
    assert not has_picture(four)


@pytest.mark.parametrize("law", ["isotropic", "adaptive"])
def test_the_arrow_of_the_radii_has_room_for_wider_letters(law: str) -> None:
    ax = radii.draw({"a name of 24 letters, say": flatness([1.0, 2.0, INFINITE], law=law)})
    figure = canvas.figure_of(ax)
    figure.canvas.draw()
    ends = ax.xaxis.label.get_window_extent()
    assert ends.x1 + 0.1 * ends.width < figure.bbox.x1
    assert "flatter" in ax.get_xlabel().splitlines()[0]
