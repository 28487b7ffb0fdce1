"""The kinds of figures: what they draw is what the table holds."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from analyses.rules import student
from figures import kinds
from figures.__main__ import draw, main
from figures.items import figures

FRAME = pd.DataFrame(
    [(labels, n, seed, base + n + seed) for labels, base in (("natural", 10.0), ("other", 0.0)) for n in (1, 2)
     for seed in (0, 1, 2)],
    columns=["labels", "n", "seed", "radius"],
)  # fmt: skip


def test_curves_draw_means_bands_and_published_values_closed_form() -> None:
    _, (ax,) = kinds.panels(["t"])
    kinds.curves(ax, FRAME, "n", "radius", by="labels", published={"natural": {1: 45.4}, "paper": 6.9}, scale="log")
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["natural"].get_xydata().tolist() == [[1, 12], [2, 13]]
    assert lines["other"].get_xydata().tolist() == [[1, 2], [2, 3]]
    assert lines["natural"].get_color() == kinds.NAMED["natural"]
    assert lines["other"].get_color() != lines["natural"].get_color()
    assert lines["natural, published"].get_xydata().tolist() == [[1, 45.4]]
    assert set(lines["paper, published"].get_ydata()) == {6.9}
    low, high = student([11.0, 12.0, 13.0])[1:]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(low), pytest.approx(high + 1))
    assert ax.get_xscale() == "log"


def test_a_curve_of_one_seed_has_no_band() -> None:
    _, (ax,) = kinds.panels(["t"])
    kinds.curves(ax, FRAME[FRAME["seed"] == 0], "n", "radius", by="labels")
    assert len(ax.lines) == 2
    assert not any(band.get_paths() for band in ax.collections)


def test_bars_stand_beside_published_ones_closed_form() -> None:
    _, (ax,) = kinds.panels(["t"])
    kinds.bars(ax, {"a": [1.0, 3.0], "b": [5.0]}, {"a": (2.5, 0.5)}, label="points")
    ours, published = (
        [bar.get_height() for bar in container] for container in ax.containers if hasattr(container, "patches")
    )
    assert ours == [2.0, 5.0]
    assert published[0] == 2.5
    assert np.isnan(published[1])
    assert ax.get_ylabel() == "points"


def test_distributions_are_shares_of_each_group_closed_form() -> None:
    frame = pd.DataFrame({"value": [0.5, 0.5, 1.5, 0.5], "group": ["a", "a", "a", "b"], "count": [1, 1, 2, 5]})
    for weight, expected in ((None, [2 / 3, 1 / 3]), ("count", [0.5, 0.5])):
        _, (ax,) = kinds.panels(["t"])
        kinds.distributions(ax, frame, "value", by="group", weight=weight, bins=[0.0, 1.0, 2.0], mark=1.0)
        found = {tuple(own.get_facecolor()[0][:3]): own.get_paths()[0].vertices[:, 1] for own in ax.collections}
        first, second = (found[to_rgb(kinds.CYCLE[k])] for k in range(2))
        assert {*first.round(9)} == {0, *np.round(expected, 9)}
        assert {*second} == {0, 1}
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_triangles_share_one_scale_and_leave_out_what_is_not_finite() -> None:
    corners = ["lambda_1", "lambda_2", "lambda_3"]
    points = pd.DataFrame([(i / 4, j / 4, (4 - i - j) / 4) for i in range(5) for j in range(5 - i)], columns=corners)
    low = points.assign(accuracy=points["lambda_1"] / 2)
    high = points.assign(accuracy=points["lambda_1"].where(points["lambda_1"] < 1, np.nan))
    figure = kinds.triangles({"low": low, "high": high}, "accuracy")
    assert [ax.get_title() for ax in figure.axes[:2]] == ["low", "high"]
    contours = [ax.collections[0] for ax in figure.axes[:2]]
    assert all((c.norm.vmin, c.norm.vmax) == (contours[0].norm.vmin, 0.75) for c in contours)


def test_images_are_drawn_with_channels_last() -> None:
    colours = np.zeros((3, 2, 4))
    colours[0] = 1.0
    figure = kinds.images({"red": colours, "gray": np.full((1, 2, 4), 0.5), "flat": np.full((2, 4), 2.0)}, columns=2)
    red, gray, flat = (ax.images[0].get_array() for ax in figure.axes)
    assert red.shape == (2, 4, 3)
    assert (gray.shape, flat.shape) == ((2, 4), (2, 4))
    assert (float(red[..., 0].min()), float(red[..., 1].max()), float(flat.max())) == (1.0, 0.0, 1.0)


def test_groups_keep_their_colours_closed_form() -> None:
    found = kinds.colour(["random", "a", "b"])
    assert found["random"] == kinds.NAMED["random"]
    assert len({*found.values()}) == 3
    assert len(kinds.colour(range(20))) == 20


def test_an_id_that_two_files_draw_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [SimpleNamespace(name=name) for name in "ab"]
    monkeypatch.setattr("figures.items.pkgutil.iter_modules", lambda *_: modules)
    monkeypatch.setattr("figures.items.importlib.import_module", lambda name: SimpleNamespace(FIGURES={"T3-F1": name}))
    with pytest.raises(ValueError, match="each id must be drawn by one file, got T3-F1 again in b"):
        figures.__wrapped__()


def test_the_main_draws_what_has_a_record_and_refuses_the_rest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the id must be one of .*, got T3-F99"):
        draw("T3-F99", "cpu", out=tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no record"):
        draw("T3-T1", "cpu", records=tmp_path, out=tmp_path)
    [path] = main(["S17-T2", "--out", str(tmp_path)])
    assert path == tmp_path / "S17-T2-cpu.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert main(["all", "--records", str(tmp_path)]) == []
