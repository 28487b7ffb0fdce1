"""Pictures of many networks: nothing repeats silently, collapses or is cut off."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

import flatprobe as fp
from flatprobe.plotting import bands, bounds, canvas, draw, png, rows, slices, triangle
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.utils.results import Result
from tests.helpers.cases import mlp
from tests.plotting.test_attacks import accuracy, sandwich
from tests.plotting.test_curvature import curvature, noise_of, slice_of
from tests.plotting.test_plotting import curve, flatness, interpolation, margins_of, norms
from tests.plotting.test_smoothing import certificate

LONG = "a network with a name that nobody would choose, of some letters, "
KINDS = {
    "radii": lambda k: flatness([1.0 + k, 2.0 + k, float("inf") if k % 3 == 0 else 3.0]),
    "margins": margins_of,
    "scores": lambda k: margins_of(k, "scores", outputs="softmax"),
    "norms": lambda k: norms(k, scale=1.0 + k),
    "robustness": curve,
    "adversarial": lambda k: accuracy([0.0, 0.1], [[True, True, True], [k % 2 == 0, False, True]]),
    "certificate": certificate,
    "sandwich": lambda k: sandwich([1.0 + k, 2.0, float("inf")], [0.1, 0.2, 0.3 + k]),
    "noise": noise_of,
    "slice": lambda k: slice_of(1, base=0.01 * (k + 1)),
    "line": lambda k: interpolation(2, peak=1.0 + k),
    "trace": lambda k: curvature(HessianTrace, [1.0 + k, 2.0 + k]),
    "eigenvalues": lambda k: curvature(HessianEigenvalues, [1.0 + k, 2.0 + k]),
    "weights": lambda k: fp.weight_norms(mlp(seed=k), (1, 8, 8)),
    "bounds": lambda k: fp.bounds.hoeffding(samples=1000, empirical=0.01 * k, delta=0.05),
}


def figure_of(picture: object) -> Figure:
    figure = canvas.figure_of(picture)
    assert figure.get_figwidth() == canvas.WIDTH  # so that letters are as large in every picture
    return figure


def shown(figure: Figure) -> Iterator[Text]:
    """The words of a drawn figure; matplotlib keeps ticks beyond the axes, which it does not draw."""
    beyond = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis, *([ax.zaxis] if hasattr(ax, "zaxis") else [])):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:
                    beyond |= {id(tick.label1), id(tick.label2)}
    beyond |= {id(text) for ax in figure.axes if hasattr(ax, "zaxis") for text in ax.texts}  # placed when drawn
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in beyond:
            yield text


def assert_words_are_inside(figure: Figure) -> None:
    figure.draw_without_rendering()  # a warning of collapsed axes is an error here
    for text in shown(figure):
        box = text.get_window_extent()
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= figure.bbox.height + 1, text
        assert text.get_fontsize() / 72 / canvas.WIDTH * 420 >= 8, text  # pixels, on a telephone


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 6, 7, 24])
def test_property_all_words_are_in_the_picture_and_large_enough(name: str, count: int) -> None:
    results: dict[str, Result] = {f"{LONG * (k == 0)}{k}": KINDS[name](k) for k in range(count)}
    assert_words_are_inside(figure_of(draw(results)))
    groups = {own: "natural" if k < count / 2 else "random" for k, own in enumerate(results)}
    assert_words_are_inside(figure_of(draw(results, groups=groups)))


@pytest.mark.parametrize("count", [2, 5, 24])
def test_property_landscapes_side_by_side_are_in_the_picture(count: int) -> None:
    landscapes = {f"network {k}": interpolation(peak=1.0 + k) for k in range(count)}
    for surface in (False, True):
        assert_words_are_inside(figure_of(triangle.draw_row(landscapes, surface=surface)))
    planes = slices.draw_row({f"network {k}": slice_of() for k in range(count)})
    assert_words_are_inside(figure_of(planes))
    panels = planes.axes[:count]
    assert len({round(own.get_window_extent().y0) for own in panels}) == {2: 1, 5: 2, 24: 6}[count]


def test_rows_are_sorted_by_median_within_their_groups_from_seven_networks_on() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 7.0, 3.0, 6.0]
    names = [f"n{value:g}" for value in values]
    medians = dict(zip(names, values, strict=True))
    assert rows.prepare(names[:6], None, None, medians).order == names[:6]
    assert rows.prepare(names, None, None, medians).order == sorted(names)
    groups = {name: "odd" if int(name[1]) % 2 else "even" for name in names}
    table = rows.prepare(names, None, groups, medians)
    assert table.order == ["n1", "n3", "n5", "n7", "n2", "n4", "n6"]
    assert len({table.colours[name] for name in table.order[:4]}) == 1
    assert [text.get_text() for text in table.ax.get_legend().get_texts()] == ["odd", "even"]


def test_boxes_are_quartiles_and_range_of_each_network() -> None:
    results = {f"n{k}": margins_of(k) for k in range(8)}
    ax = draw(results)
    names = [text.get_text() for text in ax.get_yticklabels()]
    lines = [own for own in ax.lines if len(own.get_xdata()) == 2]
    for place, name in enumerate(names):
        own = results[name].values.numpy()
        drawn = {
            round(float(x), 9)
            for line in lines
            if abs(np.mean(line.get_ydata()) - place) < 0.4
            for x in line.get_xdata()
        }
        assert drawn >= {round(float(x), 9) for x in np.quantile(own, [0, 0.25, 0.5, 0.75, 1])}


def test_points_are_spread_within_their_row_and_many_of_them_are_an_image() -> None:
    ax = draw({f"n{k}": flatness([1.0 + j / 100 for j in range(150)]) for k in range(8)})
    assert all(own.get_rasterized() for own in ax.collections)
    for place, own in enumerate(ax.collections):
        offsets = np.asarray(own.get_offsets())[:, 1] - place
        assert np.abs(offsets).max() <= 0.2
        assert len(set(offsets.round(6))) == 150
    assert not any(own.get_rasterized() for own in draw({"a": flatness([1.0, 2.0])}).collections)


def test_reference_a_band_is_the_median_and_the_quartiles_of_its_group() -> None:
    results = {f"n{k}": curve(k) for k in range(9)}
    ax = draw(results, groups={name: "low" if name < "n4" else "high" for name in results})
    for line, band, members in zip(ax.lines, ax.collections, (range(4), range(4, 9)), strict=True):
        table = np.stack([results[f"n{k}"].mean.numpy() for k in members])
        np.testing.assert_allclose(line.get_ydata(), np.median(table, 0))
        edges = {*np.asarray(band.get_paths()[0].vertices)[:, 1].round(9)}
        assert edges >= {*np.quantile(table, [0.25, 0.75], axis=0).ravel().round(9)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["low (4)", "high (5)"]


def test_many_networks_without_groups_have_a_colour_each_and_are_named_beside_the_curves() -> None:
    results = {f"n{k}": curve(k) for k in range(24)}
    ax = draw(results)
    assert ax.get_legend() is None
    assert len({to_hex(line.get_color()) for line in ax.lines}) == 24
    bar = canvas.figure_of(ax).axes[1]
    assert [text.get_text() for text in bar.get_yticklabels()] == list(results)
    assert bar.get_window_extent().x0 > ax.get_window_extent().x1
    sixty = canvas.figure_of(draw({f"n{k}": curve(k) for k in range(60)})).axes[1].get_yticklabels()
    assert len(sixty) == 24
    assert (sixty[0].get_text(), sixty[-1].get_text()) == ("n0", "n59")
    own_groups = draw(results, groups={name: name for name in results})
    assert len({to_hex(line.get_color()) for line in own_groups.lines}) == 24


@pytest.mark.parametrize(("count", "groups"), [(2, False), (9, True), (9, False)])
def test_property_values_that_are_not_finite_are_crosses_in_every_form(count: int, groups: bool) -> None:
    x = torch.tensor([0.0, 1.0, 2.0]).double()
    curves = [
        bands.Curve(f"n{k}", x, torch.tensor([1.0, float("nan") if k == 1 else 2.0, 3.0]).double())
        for k in range(count)
    ]
    ax = bands.draw(curves, None, dict.fromkeys([own.name for own in curves], "all") if groups else None)
    crosses = [own for own in ax.collections if len(own.get_offsets()) == 1]
    assert np.asarray(crosses[0].get_offsets()).tolist() == [[1.0, 0.98]]


def test_geometric_margins_of_many_networks_are_intervals_between_medians() -> None:
    ax = draw({f"n{k}": KINDS["sandwich"](k) for k in range(7)})
    names = [text.get_text() for text in ax.get_yticklabels()]
    for line, name in zip(ax.lines, names, strict=True):
        result = KINDS["sandwich"](int(name[1]))
        assert line.get_xdata().tolist() == [float(result.lower.median()), float(result.upper.median())]


def test_a_row_of_bounds_is_as_far_from_the_edge_for_any_number() -> None:
    for count in (2, 24):
        found = {f"n{k}": fp.bounds.hoeffding(samples=1000, empirical=0.01, delta=0.05) for k in range(count)}
        assert bounds.draw(found).get_ylim() == (count - 0.4, -0.6)


def test_pictures_leave_numpys_random_state_and_pyplot_alone() -> None:
    import matplotlib.pyplot as plt

    before, backend = np.random.get_state(), plt.get_backend()
    for make, count in itertools.product(KINDS.values(), (2, 8)):
        draw({f"n{k}": make(k) for k in range(count)})
    after = np.random.get_state()
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
    assert not plt.get_fignums()
    assert plt.get_backend() == backend


def test_the_same_picture_is_the_same_file() -> None:
    found = {f"n{k}": flatness([1.0 + k, 2.0, 3.0]) for k in range(3)}
    assert png(draw(found), resolution=40) == png(draw(found), resolution=40)
    assert canvas.svg(draw(found)) == canvas.svg(draw(found))


def test_an_svg_element_has_words_in_the_colour_of_the_page_and_no_name_of_its_own() -> None:
    text = canvas.svg(draw({"one & <b>": flatness([1.0, 2.0]), "two": flatness([1.5])}))
    assert text.startswith("<svg ")
    assert "one &amp; &lt;b&gt;</text>" in text
    assert "flatter →</text>" in text
    assert canvas.INK not in text
    assert "currentColor" in text
    assert "<g id=" not in text
    assert "#ffffff" not in text.split("<text")[0]  # the background is clear
    assert ">0.0004</text>" in canvas.svg(draw({f"n{k}": flatness([0.0004 * (1 + k)]) for k in range(2)}))
    noise: GradientNoise = noise_of(0)
    assert len(canvas.svg(draw(dataclasses.replace(noise)))) < len(png(draw(noise)))


def test_scales_begin_at_zero_or_are_logarithmic_with_plain_numbers() -> None:
    ax = Figure().add_subplot()
    canvas.scale(ax, "x", [[4.94, 4.99]])
    assert ax.get_xlim() == pytest.approx((0, 1.05 * 4.99))
    assert ax.get_xscale() == "linear"
    canvas.scale(ax, "y", [np.array([0.1, np.inf]), [np.nan, 30.0]])
    assert ax.get_yscale() == "log"
    labels = [ax.yaxis.get_major_formatter()(tick, None) for tick in (0.1, 1, 20)]
    assert labels == ["0.1", "1", "20"]
    assert ax.get_ylim()[0] < 0.1 < 30 < ax.get_ylim()[1]
    negative = Figure().add_subplot()
    canvas.scale(negative, "x", [[-2.0, -1.0]])
    assert negative.get_xlim()[0] < -2
    assert negative.get_xlim()[1] == 0
    nothing = Figure().add_subplot()
    canvas.scale(nothing, "x", [[np.nan]])
    assert nothing.get_xlim()[0] == 0 < nothing.get_xlim()[1]
