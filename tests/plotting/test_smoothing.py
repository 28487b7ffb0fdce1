"""The picture, section and headline of smoothed certificates: what is drawn is what the results hold."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from flatprobe.plotting import curve as curve_plot
from flatprobe.probes.smoothing import ABSTAINED, SmoothedCertificate
from flatprobe.report import report
from flatprobe.studies.headlines import headline, unit
from flatprobe.utils import rng
from flatprobe.utils.numbers import percent
from flatprobe.utils.results import settings
from tests.plotting.test_plotting import GROUPS, SUBJECT, curve


def certificate(seed: int, **arguments: object) -> SmoothedCertificate:
    given = {"sigma": 0.25, "draws": 1000, "alpha": 0.001, "selection": 100, "seed": 0} | arguments
    radius = 0.6 * torch.rand(300, generator=rng.generator(seed, "radius"), dtype=torch.float64)
    labels = torch.arange(300) % 3
    predicted = torch.where(torch.arange(300) % 10 == 0, 0, labels)
    predicted[:15] = ABSTAINED
    radius[:15] = 0
    return SmoothedCertificate(
        predicted=predicted, radius=radius, selected=labels, counts=labels, labels=labels,
        settings=settings("smoothed_certificate", SUBJECT, **given),
    )  # fmt: skip


def test_curve_and_band_are_the_results_and_abstentions_are_noted() -> None:
    result = certificate(0)
    ax = curve_plot.draw(result)
    line, mark = ax.get_lines()
    radii = np.asarray(line.get_xdata())
    np.testing.assert_array_equal(line.get_ydata(), result.certified_accuracy(radii.tolist()))
    most = 0.25 * stats.norm.ppf(0.001 ** (1 / 1000))
    assert list(mark.get_xdata()) == pytest.approx([most, most], rel=1e-9)
    assert radii[0] == 0 < most < radii[-1]
    lower, upper = result.band(radii.tolist())
    (band,) = ax.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert heights.min() == float(lower.min())
    assert heights.max() == float(upper.max())
    assert "abstains on 5 %" in {text.get_text() for text in ax.texts}
    assert ax.get_legend() is None


def test_networks_of_a_group_share_a_colour_and_the_legend_notes_abstentions() -> None:
    ax = curve_plot.draw({name: certificate(seed) for seed, name in enumerate(GROUPS)}, groups=GROUPS)
    first, second, third, _ = ax.get_lines()
    assert first.get_color() == second.get_color() != third.get_color()
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words[:2] == ["natural", "natural 0 (abstains on 5 %)"]
    own = Figure().add_subplot()
    assert curve_plot.draw(certificate(0), own) is own


def test_what_cannot_be_in_one_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"different values of sigma: 0\.25, 0\.5"):
        curve_plot.draw({"a": certificate(0), "b": certificate(1, sigma=0.5)})
    with pytest.raises(TypeError, match="'b' is of type Robustness; expected SmoothedCertificate"):
        curve_plot.draw({"a": certificate(0), "b": curve(0)})


def test_section_headline_and_table(tmp_path) -> None:
    results = {"a": certificate(0), "b": certificate(1)}
    page = report({"smoothed_certificate": results}, tmp_path / "report.html").read_text()
    assert "The radii belong to the vote, not to the network" in page
    assert "certified at 0.5 sigma" in page
    found = headline(results["a"])
    value = float(results["a"].certified_accuracy([0.25])[0])
    assert found.value == pytest.approx(value)
    low, high = (percent(float(end[0])) for end in results["a"].band([0.25]))
    assert found.words == f"{percent(value)} [{low}, {high}]"
    assert found.words in page
    assert unit(results) == "% certified at l2 radius 0.25, smoothed [Wilson 95 %]"
    nothing = dataclasses.replace(
        results["a"], predicted=torch.full((300,), ABSTAINED), radius=torch.zeros(300).double()
    )
    assert math.isclose(headline(nothing).value, 0)
