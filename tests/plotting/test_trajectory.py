"""Pictures of whole comparisons: a panel per figure against the epoch, and a table in colours."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from flatprobe.plotting import canvas, heatmap, trajectory
from flatprobe.probes.generalization import Generalization
from flatprobe.studies.comparison import Comparison
from flatprobe.studies.headlines import headline
from flatprobe.utils.results import settings
from tests.plotting.test_curvature import noise_of
from tests.plotting.test_many_networks import assert_words_are_inside
from tests.plotting.test_plotting import curve, flatness, interpolation


def general(train: float, test: float | None = None) -> Generalization:
    """Accuracies of 20 samples per split; a wrong sample has a loss of 1."""
    parts = {"train": train} | ({"test": test} if test is not None else {})
    correct = torch.cat([(torch.arange(20) < round(20 * share)).double() for share in parts.values()])
    split = tuple(name for name in parts for _ in range(20))
    return Generalization(
        split=split, losses=1 - correct + 0.01, correct=correct, settings=settings("generalization", {})
    )


def comparison(epochs: int = 5, groups: tuple[str, ...] = ("run",), seeds: int = 1) -> Comparison:
    names = [(group, seed, epoch) for group in groups for seed in range(seeds) for epoch in range(1, epochs + 1)]
    keys = {f"{group}-{seed}-{epoch}": (group, seed, epoch) for group, seed, epoch in names}
    shift = {group: place for place, group in enumerate(groups)}
    return Comparison(
        results={
            "generalization": {name: general(min(1, 0.1 * e), 0.5) for name, (_, _, e) in keys.items()},
            "flatness_radius": {
                name: flatness([end + e + s + 10 * shift[g] for end in (1.0, 2.0)]) for name, (g, s, e) in keys.items()
            },
            "gaussian_robustness": {name: curve(e) for name, (_, _, e) in keys.items()},
            "gradient_noise": {name: noise_of(e) for name, (_, _, e) in keys.items()},
            "landscape": dict.fromkeys(groups, interpolation()),
        },
        groups={name: group for name, (group, _, _) in keys.items()},
        along={name: float(epoch) for name, (_, _, epoch) in keys.items()},
        along_name="epoch",
    )


def test_closed_form_a_panel_per_figure_with_loss_and_accuracy_on_top() -> None:
    found = comparison()
    figure = trajectory.draw(found)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:3] == ["loss  ↓ better", "accuracy  ↑ better", "flatness radius\nmean  ↑ better"]
    assert titles[4].startswith("gradient noise\n")
    assert "better" not in titles[4]
    assert len(titles) == 5  # a landscape belongs to several networks
    solid, dashed = figure.axes[1].lines
    assert solid.get_xydata().tolist() == [[e, pytest.approx(0.1 * e)] for e in range(1, 6)]
    assert dashed.get_ydata().tolist() == [0.5] * 5
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    (line,) = figure.axes[2].lines
    assert line.get_ydata().tolist() == [1.5 + e for e in range(1, 6)]
    vertices = np.asarray(figure.axes[2].collections[0].get_paths()[0].vertices)
    for name, epoch in (found.along or {}).items():
        own = headline(found.results["flatness_radius"][name])
        assert own is not None
        assert {own.lower, own.upper} <= {*vertices[vertices[:, 0] == epoch, 1].tolist()}
    assert [ax.get_xlabel() for ax in figure.axes[-2:]] == ["epoch", "epoch"]
    assert_words_are_inside(figure)


def test_reference_several_networks_of_a_group_at_one_epoch_are_a_median_with_quartiles() -> None:
    figure = trajectory.draw(comparison(3, ("natural", "random"), seeds=4))
    ax = figure.axes[2]
    for line, band, shift in zip(ax.lines, ax.collections, (0, 10), strict=True):
        means = np.array([[1.5 + e + s + shift for s in range(4)] for e in (1, 2, 3)])
        assert line.get_ydata().tolist() == np.median(means, 1).tolist()
        edges = {*np.asarray(band.get_paths()[0].vertices)[:, 1].tolist()}
        assert edges >= {*np.quantile(means, [0.25, 0.75], axis=1).ravel().tolist()}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["natural", "random", "train", "test"]


@pytest.mark.parametrize("epochs", [3, 20, 100])
def test_property_three_to_a_hundred_checkpoints_are_readable(epochs: int) -> None:
    figure = trajectory.draw(comparison(epochs, ("natural", "random")))
    assert figure.get_figwidth() == canvas.WIDTH
    assert_words_are_inside(figure)
    assert (figure.axes[2].lines[0].get_marker() in ("None", None)) == (epochs > 30)


def test_learning_rates_are_on_a_logarithmic_axis_and_what_is_not_finite_is_a_gap() -> None:
    found = comparison(4)
    places = dict(zip(found.groups, (1e-4, 1e-3, 1e-2, 1e-1), strict=True))
    radii = dict(found.results["flatness_radius"])
    radii["run-0-2"] = flatness([math.inf])
    ordered = dataclasses.replace(found, along=places, results=found.results | {"flatness_radius": radii})
    ax = trajectory.draw(ordered).axes[2]
    assert ax.get_xscale() == "log"
    assert trajectory.draw(found).axes[2].get_xscale() == "linear"
    assert ax.lines[0].get_xdata().tolist() == [1e-4, 1e-2, 1e-1]


def test_a_comparison_draws_itself() -> None:
    found = comparison()
    assert len(found.plot().axes) == 5
    alone = dataclasses.replace(found, along=None, along_name=None)
    assert [text.get_text() for text in alone.plot().axes[0].get_yticklabels()] == list(found.groups)
    with pytest.raises(ValueError, match="the networks must be along a number, got none"):
        trajectory.draw(alone)
    nothing = dataclasses.replace(found, results={"landscape": found.results["landscape"]})
    for draw in (trajectory.draw, heatmap.draw):
        with pytest.raises(ValueError, match="there are no figures to draw"):
            draw(nothing)


def test_closed_form_the_table_is_coloured_by_rank_towards_the_better_end() -> None:
    found = dataclasses.replace(comparison(3), along=None)
    ax = heatmap.draw(found).axes[0]
    shades = np.asarray(ax.collections[0].get_facecolor()).reshape(3, 6, 4)[:, :, :3]
    words = [text.get_text() for text in ax.texts]
    titles = [text.get_text() for text in ax.get_xticklabels()]
    assert titles == ["test\naccuracy", "flatness\nradius", "gaussian\nrobustness", "gradient\nnoise"]
    assert "2.50" in words
    assert "50.0" in words  # an accuracy in per cent
    blue_over_red = shades[:, :, 2] - shades[:, :, 0]
    assert (np.diff(blue_over_red[:, 1]) > 0).all()  # a larger radius is better
    errors = np.array([headline(own).value for own in found.results["gaussian_robustness"].values()])
    assert (np.argsort(blue_over_red[:, 2]) == np.argsort(-errors)).all()  # a smaller error is better
    for column in (0, 3):  # equal accuracies, and a figure without a better end
        assert np.ptp(shades[:, column], axis=0).max() == 0
        assert min(shades[0, column]) > 0.9
    assert np.abs(shades[1, 1] - shades[0, 3]).max() < 1e-9  # the middle of three is neutral


def test_a_network_without_a_measurement_has_an_empty_cell_and_many_are_readable() -> None:
    found = dataclasses.replace(comparison(24, ("b", "a")), along=None)
    missing = {name: own for name, own in found.results["flatness_radius"].items() if name != "b-0-1"}
    more = {f"radius {k}": found.results["flatness_radius"] for k in range(7)}
    figure = heatmap.draw(dataclasses.replace(found, results=found.results | {"flatness_radius": missing} | more))
    assert_words_are_inside(figure)
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == list(found.groups)
    assert len(first.texts) == 6 * 48 - 1
    assert len(second.get_xticklabels()) == 5
