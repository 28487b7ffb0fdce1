"""The report: one file that needs no other, with every network, picture and setting, and right statistics."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import flatprobe as fp
from flatprobe.probes.generalization import Generalization
from flatprobe.probes.per_sample import PerSample
from flatprobe.report import load_records, report
from flatprobe.report.weight_tables import landscapes
from flatprobe.studies.comparison import Comparison, Refusal
from flatprobe.utils.numbers import MISSING, three
from flatprobe.utils.results import settings
from tests.plotting.test_attacks import sandwich
from tests.plotting.test_plotting import INFINITE, curve, flatness, interpolation, margins_of, norms

NAMES = ("natural 0", "natural 1", "random 0", "random 1")
GROUPS = {name: name.split()[0] for name in NAMES}
RADII = {"natural 0": [14.0, 16.0], "natural 1": [15.0, 18.0, INFINITE], "random 0": [3.0, 3.5], "random 1": [3.2, 3.4]}


def records() -> dict[str, dict[str, object]]:
    return {
        "gaussian_robustness": {name: curve(seed) for seed, name in enumerate(NAMES)},
        "flatness_radius": {name: flatness(RADII[name]) for name in NAMES},
        "flatness_radius_adaptive": {name: flatness(RADII[name], law="adaptive") for name in NAMES},
        "landscape": {"natural": interpolation(peak=0.2), "random": interpolation()},
        "functional_margins": {name: margins_of(seed) for seed, name in enumerate(NAMES)},
        "scores": {name: margins_of(seed, "scores", outputs="softmax") for seed, name in enumerate(NAMES)},
        "jacobian_norms": {name: norms(seed) for seed, name in enumerate(NAMES)},
    }


EARLIER = '<meta name="generator" content="flatprobe">an earlier page'
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Tags, and titles of sections; the elements must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2" and data.strip():
            self.titles.append(data)
        if data.strip() and "style" not in self._open and "script" not in self._open:
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    notes = ["The radii are at equal loss."]
    assert report(records(), path, groups=GROUPS, title="A title", introduction="Why.", notes=notes) == path
    assert [own.name for own in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_page_needs_no_other_file(page: str) -> None:
    tags = Page(page).tags
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    links = [str(value) for _, own in tags for name, value in own.items() if name in ("src", "href", "xlink:href")]
    assert links
    anchors = {own.get("id") for _, own in tags}
    assert all(link.startswith("data:") or (link[0] == "#" and link[1:] in anchors) for link in links)
    assert not re.search(r"url\([^#]|@import", page)
    addresses = set(re.findall(r"https?://[^\"' ]*", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not requests
    assert "default-src &#39;none&#39;" in page


def test_page_holds_every_picture_with_words_and_every_network(page: str) -> None:
    parsed = Page(page)
    cards = [own for tag, own in parsed.tags if tag == "div" and own.get("role") == "img"]
    assert len(cards) == 8
    assert page.count("<svg") == 8
    first = next(str(own["aria-label"]) for own in cards)
    assert first.endswith(
        "Mean: natural from 15.0 to 16.5 (2 networks), random from 3.25 to 3.30 (2 networks); natural above random."
    )
    assert all(name in page for name in NAMES)
    for words in ("The radii are at equal loss.", "made up", f"torch {version('torch')}", "epsilon 0.05", "Why."):
        assert words in page
    # The weights' space comes first, whatever order the records have; radii share a section, twins side by side.
    assert parsed.titles == [
        "The answer", "Networks", "Flatness radii", "Landscape: loss", "Landscape: accuracy", "Functional margins",
        "Scores", "Jacobian norms", "Gaussian robustness", "Settings",
    ]  # fmt: skip
    assert [title for own, title in re.findall(r'<li><a href="#([^"]*)">([^<]*)</a>', page)] == parsed.titles


def test_head_names_networks_data_date_and_version(page: str, tmp_path: Path) -> None:
    words = Page(page).words
    assert words.count("A title") == 2
    head = next(own for own in words if own.startswith("4 networks: natural 0, natural 1, random 0, random 1"))
    assert re.search(
        rf"data: made up \(1,000 samples\) · \d+ \w+ 20\d\d · flatprobe {re.escape(version('flatprobe'))}", head
    )
    own = report({"a": margins_of(0), "b": margins_of(1)}, tmp_path / "page.html").read_text()
    assert "<h1>a and b on made up</h1>" in own


def test_twins_at_equal_loss_stand_beside_each_other(tmp_path: Path) -> None:
    radii = {name: flatness(RADII[name]) for name in NAMES}
    keys = ["flatness_radius", "flatness_radius_last_layer", "flatness_radius_equal_loss"]
    page = report(dict.fromkeys(keys, radii), tmp_path / "page.html").read_text()
    assert Page(page).titles == ["The answer", "Networks", "Flatness radii", "Settings"]
    captions = [own.split(":")[0] for own in re.findall(r"<figcaption>([^<]*)", page)]
    assert captions == ["Flatness radius", "Flatness radius equal loss", "Flatness radius last layer"]


def test_refusals_notes_and_tables_of_the_folder_are_there(tmp_path: Path) -> None:
    comparison = Comparison(
        results={"flatness_radius": {"a": flatness([1.0, 2.0])}},
        groups={"a": "a"},
        refusals=(Refusal("geometric_margins", "a", "no certificate for <attention>"), Refusal("", "b", "corrupt")),
        facts={"a": {"class": "Net", "parameters": 12345, "norm": 7.25, "checks_not_made": ["no attack"]}},
        notes=("a: the accuracy is that of chance",),
    )
    folder = comparison.save(tmp_path / "records here")
    comparison.write(folder / "comparison.parquet")
    page = report(folder, tmp_path / "page.html").read_text()
    words = " ".join(Page(page).words)
    for own in ("Geometric margins of a: no certificate for <attention>", "b: corrupt", "12,345", "no attack"):
        assert own in words
    assert words.index("a: the accuracy is that of chance") < words.rindex("Flatness radius")
    assert 'href="records%20here/comparison.parquet"' in page
    assert "Norm of the weights" in words
    assert "7.25" in words


def test_legend_explains_only_what_the_tables_hold(tmp_path: Path) -> None:
    def text(results: dict[str, dict[str, object]]) -> str:
        return " ".join(Page(report(results, tmp_path / "page.html").read_text()).words)

    alone = text({"flatness_radius": {"a": flatness([1.0, 2.0])}})
    assert "Intervals are 95 %" in alone
    assert "marked best" not in alone
    assert "geometric margins" not in alone
    apart = {"a": flatness([7.0, 7.2, 6.8, 7.1]), "b": flatness([3.3, 3.2, 3.4, 3.3])}
    assert "marked best" in text({"flatness_radius": dict(apart)})
    close = {"a": flatness([7.0, 3.0, 5.0]), "b": flatness([4.0, 5.0, 5.8])}
    assert "marked best" not in text({"flatness_radius": dict(close)})
    assert "are no confidence intervals" in text({"geometric_margins": {"a": sandwich([1.0, 2.0], [0.1, 0.2])}})


def test_refusals_of_one_reason_are_one_entry_and_losses_are_no_accuracies(tmp_path: Path) -> None:
    losses = torch.tensor([0.5, 1.5, 2.0, 4.0], dtype=torch.float64)
    split, none = ("train", "train", "test", "test"), torch.full((4,), torch.nan, dtype=torch.float64)
    result = Generalization(split=split, losses=losses, correct=none, settings=settings("generalization", {}))
    measurements = ("functional_margins", "geometric_margins")
    refusals = tuple(Refusal(own, name, "no classes") for own in measurements for name in ("a", "b"))
    facts = {"a": {"class": "Net", "data": {}}}
    comparison = Comparison({"generalization": {"a": result}}, {"a": "a"}, refusals=refusals, facts=facts)
    page = report(comparison, tmp_path / "page.html").read_text()
    words = " ".join(Page(page).words)
    assert "Functional margins, Geometric margins of a, b: no classes" in words
    assert words.count("no classes") == 1
    assert "The mean loss of training samples and of test samples, with" in words
    assert "classified correctly" not in words
    assert "<dt>Data</dt>" not in page


def test_numbers_at_axes_and_in_names_keep_their_digits(tmp_path: Path) -> None:
    radii = {"rate 0.0015": flatness([0.11, 0.13]), "rate 0.0016": flatness([0.15, 0.19])}
    page = report({"flatness_radius_adaptive": radii}, tmp_path / "page.html").read_text()
    (picture,) = re.findall("<svg.*?</svg>", page, flags=re.DOTALL)
    words = re.findall("<text[^>]*>([^<]*)</text>", picture)
    assert {"rate 0.0015", "rate 0.0016", "0.025", "0.175"} <= {*words}


def test_csv_holds_every_figure_at_full_precision(page: str) -> None:
    (text,) = (unquote(own) for own in re.findall(r'download="figures.csv" href="data:[^,]*,([^"]*)"', page))
    value = margins_of(1).summary()["mean"]
    assert any(line.startswith("functional_margins,natural 1,") and str(value) in line for line in text.splitlines())


def test_names_are_escaped(tmp_path: Path) -> None:
    name = '<script>alert("x")</script>'
    results = {"flatness <b>": {name: flatness([1.0, 2.0])}}
    path = report(results, tmp_path / "r.html", groups={name: "<i>"}, title="<u>", introduction="<s>", notes=["<q>"])
    tags = [tag for tag, _ in Page(path.read_text()).tags]
    assert not {*tags} & {"i", "u", "s", "q"}
    assert tags.count("script") == 1  # the page's own
    assert "&lt;script&gt;" in path.read_text()


def test_lines_and_triangles_of_one_measurement_are_drawn_apart(tmp_path: Path) -> None:
    results = {"landscape": {"one": interpolation(3), "two": interpolation(2)}}
    page = report(results, tmp_path / "r.html").read_text()
    assert Page(page).titles[2:] == ["Landscape: loss", "Landscape: accuracy", "Landscape: line", "Settings"]
    assert three(interpolation(2).barrier) in page


def test_failure_leaves_the_earlier_page(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "r.html"
    path.write_text(EARLIER)

    def fail(*_: object) -> None:
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report({"r": {"a": flatness([1.0])}}, path)
    assert path.read_text() == EARLIER
    assert [own.name for own in tmp_path.iterdir()] == ["r.html"]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    with pytest.raises(FileNotFoundError, match="no folder of records at"):
        load_records(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"holds no records; expected MEASUREMENT/NETWORK\.parquet"):
        load_records(tmp_path)
    with pytest.raises(ValueError, match="no records to report"):
        report({}, path)
    with pytest.raises(ValueError, match="'r' holds no results"):
        report({"r": {}}, path)
    with pytest.raises(ValueError, match="'r' holds FlatnessRadii, Margins; expected results of one class"):
        report({"r": {"a": flatness([1.0]), "b": margins_of(0)}}, path)
    with pytest.raises(ValueError, match="groups must hold a group for every network, got none for 'b'"):
        report({"r": {"a": flatness([1.0]), "b": flatness([1.0])}}, path, groups={"a": "one"})
    assert not path.exists()


def test_a_probe_without_a_picture_has_its_figures_on_the_page(tmp_path: Path) -> None:
    own = {name: margins_of(k) for k, name in enumerate("ab")}
    plain = {
        name: PerSample(values=result.values, labels=result.labels, settings=result.settings)
        for name, result in own.items()
    }
    page = report({"mine": plain, "functional_margins": own}, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The figures of a probe without a picture" in page
    for result in plain.values():
        assert page.count(three(result.mean)) >= 2


@pytest.mark.parametrize("endpoints", [2, 3])
def test_a_landscape_without_a_finite_point_is_reported(endpoints: int, tmp_path: Path) -> None:
    points = fp.simplex(endpoints, steps=4)
    nothing = torch.full((len(points),), torch.nan, dtype=torch.float64)
    result = replace(interpolation(), coefficients=points, loss=nothing, error=nothing)
    (row,) = landscapes({"diverged": result}).rows
    assert row[2:6] == (MISSING, MISSING, str(len(points)), str(len(points)))
    if endpoints == 2:  # a triangle's picture refuses by itself
        assert report({"landscape": {"diverged": result}}, tmp_path / "page.html", groups={}).is_file()


@pytest.mark.parametrize("text", ["import flatprobe", "<title>flatprobe report</title>", ""])
def test_a_file_that_only_names_flatprobe_is_kept(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(FileExistsError, match="is no page of flatprobe"):
        report({"r": {"a": flatness([1.0])}}, path)
    assert path.read_text() == text
