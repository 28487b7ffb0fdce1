"""The report: one file that needs no other, with every network, picture and setting, and right statistics."""

import base64
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from scipy import stats

import flatprobe as fp
from flatprobe.report import load_records, write_report
from flatprobe.report.summary import summarize
from flatprobe.report.tables import landscapes
from flatprobe.studies.compare import Comparison
from flatprobe.utils.numbers import MISSING, plus_minus, three
from tests.plotting.test_plotting import INFINITE, curve, flatness, interpolation, margins_of, norms

NAMES = ("natural 0", "natural 1", "random 0", "random 1")
GROUPS = {name: name.split()[0] for name in NAMES}
RADII = {"natural 0": [14.0, 16.0], "natural 1": [15.0, 18.0, INFINITE], "random 0": [3.0, 3.5], "random 1": [3.2, 3.4]}


def records() -> dict[str, dict[str, object]]:
    return {
        "gaussian_robustness": {name: curve(seed) for seed, name in enumerate(NAMES)},
        "flatness_radius (top layer)": {name: flatness(RADII[name]) for name in NAMES},
        "landscape": {"natural": interpolation(peak=0.2), "random": interpolation()},
        "functional_margins": {name: margins_of(seed) for seed, name in enumerate(NAMES)},
        "scores": {name: margins_of(seed, "scores", outputs="softmax") for seed, name in enumerate(NAMES)},
        "jacobian_norms": {name: norms(seed) for seed, name in enumerate(NAMES)},
    }


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "h2" and data.strip():
            self.titles.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    notes = ["The radii are at equal loss."]
    assert write_report(records(), path, groups=GROUPS, title="A title", introduction="Why.", notes=notes) == path
    assert [own.name for own in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_a_group_with_a_fully_censored_network_is_reported(tmp_path) -> None:
    found = {name: flatness(radii) for name, radii in RADII.items()} | {"natural 1": flatness([INFINITE, INFINITE])}
    summary = summarize({"flatness_radius": found}, GROUPS)
    assert "censored" in str(summary)
    assert write_report({"flatness_radius": found}, tmp_path / "page.html", groups=GROUPS).is_file()


def test_page_needs_no_other_file(page: str) -> None:
    tags = Page(page).tags
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    links = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(str(link).startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"url\(|@import|https?:", re.sub(r"base64,[^\"]*", "", page))


def test_page_holds_every_picture_with_words_and_every_network(page: str) -> None:
    parsed = Page(page)
    pictures = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(pictures) == 7
    assert all(base64.b64decode(str(own["src"]).split(",")[1]).startswith(b"\x89PNG") for own in pictures)
    assert all(own["alt"] for own in pictures)
    text = re.sub(r"base64,[^\"]*", "", page)
    assert all(name in text for name in NAMES)
    assert "The radii are at equal loss." in text
    assert "made up" in text
    assert f"torch {version('torch')}" in text
    assert "epsilon 0.05" in text
    # The weights' space comes first, whatever order the records have.
    assert [title for title in parsed.titles if title != "Summary"] == [
        "Flatness radius (top layer)", "Landscape: loss", "Landscape: accuracy", "Functional margins", "Scores",
        "Jacobian norms", "Gaussian robustness", "Settings",
    ]  # fmt: skip


def test_summary_against_plain_statistics() -> None:
    summary = summarize({"r": {name: flatness(RADII[name]) for name in NAMES}}, GROUPS)
    rows = {row.label.replace("\N{NO-BREAK SPACE}", " "): row.cells[0] for row in summary.rows}
    assert list(rows) == [
        "natural (n = 2)", "natural 0", "natural 1", "random (n = 2)", "random 0", "random 1", "natural / random",
    ]  # fmt: skip
    assert rows["natural 0"] == "15.0 [2.29, 27.7]"  # t = 12.706 with one degree of freedom
    assert rows["natural 1"] == "16.5 [-2.56, 35.6] (1 of 3 beyond 2,170)"
    natural, random = [15.0, 16.5], [3.25, 3.3]
    assert rows["natural (n = 2)"] == f"{plus_minus(15.75, stdev(natural))} (1 censored)"
    assert rows["random (n = 2)"] == plus_minus(3.275, stdev(random))
    ratio = mean(natural) / mean(random)
    relative = sum(stdev(own) ** 2 / 2 / mean(own) ** 2 for own in (natural, random)) ** 0.5
    assert rows["natural / random"] == plus_minus(ratio, ratio * relative)


def test_summary_headlines_are_the_results_own_figures() -> None:
    own = {key: results for key, results in records().items() if key != "landscape"}
    summary = summarize(own, None)
    assert [row.label for row in summary.rows] == list(NAMES)
    cells = dict(zip((title for title, _ in summary.columns), summary.rows[1].cells, strict=True))
    margins, jacobian, robustness = margins_of(1), norms(1), curve(1)
    for title, result in (("Functional margins", margins), ("Jacobian norms", jacobian)):
        figures = result.summary()
        half = stats.t.ppf(0.975, len(result) - 1) * figures["standard_error"]
        ends = (three(figures["mean"] + sign * half) for sign in (-1, 1))
        assert cells[title] == f"{three(figures['mean'])} [{', '.join(ends)}]"
    low, high = (100 * float(end[2]) for end in robustness.band())  # the level nearest to 0.2 is the third
    assert cells["Gaussian robustness"] == f"{three(100 * float(robustness.mean[2]))} [{three(low)}, {three(high)}]"
    assert dict(summary.columns)["Gaussian robustness"].startswith("% misclassified at noise 0.2")


def test_summary_does_not_invent_what_was_not_measured() -> None:
    results = {"r": {"a": flatness([INFINITE] * 2), "b": flatness([2.0, 3.0])}, "m": {"a": margins_of(0)}}
    groups = {"a": "one", "b": "two"}
    rows = {row.label[:5]: row.cells for row in summarize(results, groups).rows}
    assert rows["a"][0] == "not reached by 2,170"
    assert rows["one ("] == (f"{MISSING} (2 censored)", rows["a"][1].partition(" [")[0])
    assert rows["b"][1] == rows["two ("][1] == MISSING
    assert rows["one /"] == (MISSING, MISSING)


def test_names_are_escaped(tmp_path: Path) -> None:
    name = '<script>alert("x")</script>'
    results = {"flatness <b>": {name: flatness([1.0, 2.0])}}
    path = write_report(
        results, tmp_path / "r.html", groups={name: "<i>"}, title="<u>", introduction="<s>", notes=["<q>"]
    )
    tags = {tag for tag, _ in Page(path.read_text()).tags}
    assert not tags & {"script", "b", "i", "u", "s", "q"}
    assert "&lt;script&gt;" in path.read_text()


def test_lines_and_triangles_of_one_measurement_are_drawn_apart(tmp_path: Path) -> None:
    results = {"landscape": {"one": interpolation(3), "two": interpolation(2)}}
    page = write_report(results, tmp_path / "r.html").read_text()
    assert Page(page).titles == ["Landscape: loss", "Landscape: accuracy", "Landscape: line", "Settings"]
    assert three(interpolation(2).barrier) in page


def test_failure_leaves_the_earlier_page(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("earlier page of flatprobe")

    def fail(*_: object) -> None:
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report({"r": {"a": flatness([1.0])}}, path)
    assert path.read_text() == "earlier page of flatprobe"
    assert [own.name for own in tmp_path.iterdir()] == ["r.html"]


def test_records_of_a_folder_come_back_in_natural_order(tmp_path: Path) -> None:
    for name in ("natural 10", "natural 2", "random 0"):
        fp.save(flatness([1.0, INFINITE]), tmp_path / "flatness_radius" / f"{name}.parquet")
    fp.save(margins_of(0), tmp_path / "functional_margins" / "natural 2.parquet")
    (tmp_path / "notes.txt").write_text("not a record")
    found = load_records(tmp_path)
    assert {key: list(results) for key, results in found.items()} == {
        "flatness_radius": ["natural 2", "natural 10", "random 0"],
        "functional_margins": ["natural 2"],
    }
    assert found["flatness_radius"]["random 0"].radii.tolist() == [1.0, INFINITE]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    with pytest.raises(FileNotFoundError, match="no folder of records at"):
        load_records(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"holds no records; expected MEASUREMENT/NETWORK\.parquet"):
        load_records(tmp_path)
    with pytest.raises(ValueError, match="no records to report"):
        write_report({}, path)
    with pytest.raises(ValueError, match="'r' holds no results"):
        write_report({"r": {}}, path)
    with pytest.raises(ValueError, match="'r' holds FlatnessRadii, Margins; expected results of one class"):
        write_report({"r": {"a": flatness([1.0]), "b": margins_of(0)}}, path)
    with pytest.raises(ValueError, match="network 'b' of the measurement 'r' has no group"):
        write_report({"r": {"a": flatness([1.0]), "b": flatness([1.0])}}, path, groups={"a": "one"})
    assert not path.exists()


def test_numbers_have_three_digits() -> None:
    assert three(0.0005) == "0.000500"
    assert three(999.6) == "1,000"
    assert plus_minus(math.nan, 1.0) == MISSING
    assert plus_minus(1234567.0, 1000.0) == "1.23e+06 ± 1.00e+03"
    assert plus_minus(1.5, 0.0) == "1.50 ± 0.00"


@pytest.mark.parametrize("endpoints", [2, 3])
def test_a_landscape_without_a_finite_point_is_reported(endpoints: int, tmp_path: Path) -> None:
    points = fp.simplex(endpoints, steps=4)
    nothing = torch.full((len(points),), torch.nan, dtype=torch.float64)
    result = replace(interpolation(), coefficients=points, loss=nothing, error=nothing)
    (row,) = landscapes({"diverged": result}).rows
    assert row[2:6] == (MISSING, MISSING, str(len(points)), str(len(points)))
    if endpoints == 2:  # a triangle's picture refuses by itself
        assert write_report({"landscape": {"diverged": result}}, tmp_path / "page.html", groups={}).is_file()


def test_property_names_with_slashes_survive_the_folder_of_records(tmp_path: Path) -> None:
    names = ["google/vit 100%", ".hidden", "a\\b", "a%2Fb", "plain 1.5"]
    results = {"flatness_radius": {name: flatness([float(k + 1)]) for k, name in enumerate(names)}}
    folder = Comparison(results=results, groups={}).save(tmp_path)
    assert len(list(folder.glob("*/*.parquet"))) == len(names)
    loaded = load_records(folder)["flatness_radius"]
    assert {name: loaded[name].radii.tolist() for name in names} == {name: [k + 1.0] for k, name in enumerate(names)}
    assert (folder / "flatness_radius" / "plain 1.5.parquet").is_file()


def test_many_measurements_have_a_row_each_groups_first(tmp_path: Path) -> None:
    margins = {"a": margins_of(0), "b": margins_of(1)}
    records = {f"margins_{k}": margins for k in range(9)}
    groups = {"a": "first", "b": "second"}
    page = write_report(records, tmp_path / "page.html", groups=groups).read_text()
    table = page[page.index('<table class="tall">') : page.index("</table>")]
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', table)
    assert [head.split("\N{NO-BREAK SPACE}")[0] for head in heads] == [
        "measurement", "first (n", "second (n", "first / second", "a", "b",
    ]  # fmt: skip
    assert table.count('<th scope="row">') == 9
    few = write_report({"margins": margins}, tmp_path / "few.html", groups=groups).read_text()
    assert 'class="tall"' not in few
