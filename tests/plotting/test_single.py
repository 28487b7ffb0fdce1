"""Pictures and sections of what a network has one figure of: bounds, its largest Jacobian norm, its norms."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import flatprobe as fp
from flatprobe.plotting import bounds, draw, histogram, png
from flatprobe.report import report
from tests.helpers.cases import cnn, data_for, mlp

BOUNDS = {
    "held out": fp.bounds.hoeffding(samples=1000, empirical=0.02, delta=0.05),
    "bits": fp.bounds.bits(samples=1000, parameters=5000, empirical=0.02, delta=0.05),
}


def test_every_term_of_every_bound_is_a_bar_cut_at_two() -> None:
    ax = bounds.draw(BOUNDS)
    widths = [patch.get_width() for patch in ax.patches]
    for bound in BOUNDS.values():
        lengths = [value / bound.maximum for value in (bound.empirical, *bound.terms.values())]
        own, widths = widths[: len(lengths)], widths[len(lengths) :]
        if sum(lengths) <= 2:
            np.testing.assert_allclose(own, lengths)
        assert sum(own) == pytest.approx(min(sum(lengths), 2))
    assert not widths
    notes = [text.get_text() for text in ax.texts]
    assert notes[1].startswith(f"{BOUNDS['bits'].expected:.3g}")


def test_largest_norms_are_histograms_of_segments() -> None:
    data = data_for((1, 8, 8), samples=20)
    results = {name: fp.jacobian_maximum(net, data, along="segments", pairs=12) for name, net in NETWORKS.items()}
    ax = histogram.draw(results)
    assert ax.get_ylabel() == "fraction of segments up to here"
    assert "largest spectral norm" in ax.get_xlabel()


def test_the_page_shows_norms_maxima_and_bounds(tmp_path: Path) -> None:
    data = data_for((1, 8, 8), samples=20)
    records = {
        "weight_norms": {name: fp.weight_norms(net, (1, 8, 8)) for name, net in NETWORKS.items()},
        "jacobian_maximum": {name: fp.jacobian_maximum(net, data) for name, net in NETWORKS.items()},
        "bounds": BOUNDS,
    }
    page = report(records, tmp_path / "page.html").read_text()
    for words in ("Weight norms", "Jacobian maximum", "held out", "l2 norm of all weights", "vacuous"):
        assert words in page
    groups = {name: name for name in (*NETWORKS, *BOUNDS)}
    assert "Bounds" in report(records, tmp_path / "groups.html", groups=groups).read_text()


def test_other_results_are_refused() -> None:
    with pytest.raises(TypeError, match="expected Bound"):
        bounds.draw(fp.weight_norms(mlp(), (1, 8, 8)))


NETWORKS = {"mlp": mlp(), "cnn": cnn()}


def test_a_result_draws_itself_as_draw_does() -> None:
    model, data = mlp(), data_for((1, 8, 8))
    margins = fp.functional_margins(model, data)
    axes = margins.plot()
    assert png(axes.figure) == png(draw(margins).figure)
    given = Figure().subplots()
    assert margins.plot(given) is given
    with pytest.raises(TypeError, match="results must be of a class that has a picture, got Audit"):
        fp.audit(model, data, probes=["functional_margins"]).plot()
