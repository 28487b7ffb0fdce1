"""The page in a browser: accessible, sortable, enlargeable by keyboard, whole on every screen and in print."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flatprobe.report import report
from flatprobe.studies.comparison import Comparison, Refusal
from tests.helpers import axe
from tests.helpers.browser import BROWSER, Browser
from tests.plotting.test_plotting import curve, flatness, interpolation, margins_of, norms

pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")

NAMES = [f"a network of some length {k}" for k in range(8)]
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
GROUPS = {name: "natural" if k < 4 else "random" for k, name in enumerate(NAMES)}


def comparison() -> Comparison:
    radii = {name: flatness([k + 1.0, k + 1.2, k + 1.1]) for k, name in enumerate(NAMES)}
    results = {
        "flatness_radius": radii,
        "flatness_radius_equal_loss": radii,
        "landscape": {"natural": interpolation(), "random": interpolation(peak=0.5)},
        "functional_margins": {name: margins_of(k) for k, name in enumerate(NAMES)},
        "jacobian_norms": {name: norms(k) for k, name in enumerate(NAMES)},
        "gaussian_robustness": {name: curve(k) for k, name in enumerate(NAMES)},
    }
    refusals = (Refusal("geometric_margins", NAMES[0], "no certificate knows its layers"),)
    return Comparison(results=results, groups=GROUPS, refusals=refusals, notes=("accuracy is near chance",))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(comparison(), tmp_path_factory.mktemp("page") / "page.html", title="A page")


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(tab: Browser, page: Path) -> Browser:
    tab.media()
    tab.open(page)
    return tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_axe_finds_nothing_serious(tab: Browser, page: Path, scheme: str, width: int) -> None:
    script = axe.script()
    if script is None:
        pytest.skip("axe-core can be had neither from the cache nor from npm")
    tab.media(scheme=scheme)
    tab.open(page, width=width)
    tab.evaluate("document.querySelectorAll('details').forEach(own => { own.open = true; })")
    tab.evaluate(script)
    found = tab.evaluate(
        "axe.run().then(found => found.violations.map(own => [own.impact, own.id, own.nodes[0].html]))"
    )
    assert [own for own in found if own[0] in ("serious", "critical")] == []
    assert tab.evaluate("axe.run().then(found => found.passes.length)") > 20  # it has looked
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_cut_at_the_right_edge(tab: Browser, page: Path, width: int) -> None:
    tab.media()
    tab.open(page, width=width)
    tab.evaluate("document.querySelectorAll('details').forEach(own => { own.open = true; })")
    assert tab.evaluate(OVERFLOW) == 0
    beyond = """[...document.querySelectorAll("main *")].filter(own => !own.closest(".scroll, .card, .hidden")
        && own.getBoundingClientRect().right > innerWidth + 1).map(own => own.outerHTML.slice(0, 200))"""
    assert tab.evaluate(beyond) == []
    answer = '[...document.querySelectorAll(".answer .scroll")].map(own => own.scrollWidth - own.clientWidth)'
    if width == 1280:
        assert max(tab.evaluate(answer)) <= 0
        return
    assert max(tab.evaluate(answer)) > 0  # the tables scroll, with a cue, and the names stay
    scrolled = tab.evaluate(
        """new Promise(resolve => {
            const scroll = [...document.querySelectorAll(".answer .scroll")]
                .find(own => own.scrollWidth > own.clientWidth);
            const cue = scroll.parentElement.nextElementSibling, before = getComputedStyle(cue).display;
            const name = scroll.querySelector("tbody th"), left = name.getBoundingClientRect().left;
            scroll.scrollLeft = 1e6;
            setTimeout(() => resolve([before, getComputedStyle(cue).display,
                name.getBoundingClientRect().left - left, scroll.tabIndex]), 300);
        })"""
    )
    assert scrolled == ["block", "none", 0, 0]


def test_nothing_is_lost_in_print(browser: Browser, tmp_path: Path) -> None:
    browser.resize(690)  # A4 less its margins
    browser.media(kind="print")
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    cut = """[...document.querySelectorAll(".scroll")].filter(own => own.scrollWidth > own.clientWidth + 1
        || own.getBoundingClientRect().right > innerWidth + 1).map(own => own.ariaLabel)"""
    assert browser.evaluate(cut) == []
    folded = """[...document.querySelectorAll("details table")].filter(own => !own.checkVisibility()).length"""
    assert browser.evaluate(folded) == 0
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate('document.querySelectorAll("details[open]").length') == 0
    browser.media()
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


COLUMN = """[...document.querySelectorAll("#answer table")[0].tBodies].at(-1).rows"""


def test_a_column_is_sorted_by_keyboard(browser: Browser) -> None:
    names = f"[...{COLUMN}].map(row => row.cells[0].textContent)"
    head = 'document.querySelectorAll("#answer table")[0].tHead.rows[0].cells[1]'
    first = browser.evaluate(names)
    assert first == NAMES
    browser.evaluate(f"{head}.querySelector('button').focus()")
    browser.press("Enter")
    assert browser.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
    assert browser.evaluate(names) == NAMES[::-1]
    browser.press(" ")
    assert browser.evaluate(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert browser.evaluate(names) == NAMES
    groups = 'document.querySelectorAll("#answer table")[0].tBodies[0].textContent'
    assert "natural" in browser.evaluate(groups)  # the rows of groups stay above


def test_a_column_is_sorted_by_value_not_by_letters(tab: Browser, tmp_path: Path) -> None:
    values = {"a": [9.0, 9.5], "b": [1000.0, 1001.0], "c": [0.5, 0.6], "d": [float("inf"), float("inf")]}
    radii = {name: flatness(own) for name, own in values.items()}
    tab.media()
    tab.open(report({"flatness_radius": radii, "m": {"a": margins_of(0)}}, tmp_path / "page.html"))
    tab.evaluate('document.querySelector("#answer thead th:nth-child(2) button").click()')
    rows = "[...document.querySelector('#answer table').tBodies[0].rows].map(row => row.cells[0].textContent)"
    assert tab.evaluate(rows) == ["d", "b", "a", "c"]  # a radius that was not reached is larger than all others
    tab.evaluate('document.querySelectorAll("#answer table")[1].querySelector("thead th:nth-child(2) button").click()')


def test_a_picture_is_enlarged_and_closed_by_keyboard(browser: Browser) -> None:
    assert browser.evaluate("document.querySelectorAll('figure').length") == browser.evaluate(
        "document.querySelectorAll('.enlarge').length"
    )
    browser.evaluate("document.querySelector('.enlarge').focus()")
    browser.press("Enter")
    assert browser.evaluate("document.getElementById('enlarged').open") is True
    small, large = browser.evaluate(
        """[".panel .card svg", "dialog .card svg"]
            .map(own => document.querySelector(own).getBoundingClientRect().width)"""
    )
    assert large > 1.3 * small
    words = browser.evaluate("document.querySelector('dialog .card').getAttribute('aria-label')")
    assert words == browser.evaluate("document.querySelector('.panel .card').getAttribute('aria-label')")
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('enlarged').open") is False
    assert browser.evaluate("document.activeElement.className") == "enlarge"


def test_every_control_is_reached_by_the_tabulator(browser: Browser) -> None:
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    expected = browser.evaluate(
        """[...document.querySelectorAll("a, button, summary, .scroll")]
            .filter(own => own.checkVisibility() && !own.closest("dialog")).length"""
    )
    reached = 1
    while browser.evaluate("document.activeElement.tagName") != "BODY" and reached <= expected:
        browser.press("Tab")
        reached += browser.evaluate("document.activeElement.tagName") != "BODY"
    assert reached == expected


def test_the_page_asks_for_nothing_and_breaks_no_rule_of_its_own(browser: Browser) -> None:
    browser.evaluate("document.querySelector('.enlarge').click()")
    asked = [
        event["params"]["request"]["url"][:80]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    said = [event for event in browser.events if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert said == []


def test_a_table_is_saved_as_csv(browser: Browser) -> None:
    text = browser.evaluate("fetch === undefined ? '' : decodeURIComponent(document.querySelector('a[download]').href)")
    assert text.startswith("data:text/csv;charset=utf-8,network,")
    assert f"\n{NAMES[0]}," in text


def test_without_scripts_all_tables_and_pictures_are_there(tab: Browser, page: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.media()
        tab.open(page)
        assert tab.evaluate("document.querySelectorAll('button:not(dialog button)').length") == 0
        assert tab.evaluate("[...document.querySelectorAll('.card svg')].every(own => own.checkVisibility())") is True
        assert tab.evaluate(OVERFLOW) == 0
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_an_interactive_page_draws_its_surfaces(tab: Browser, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    own = replace(comparison(), results={"landscape": comparison().results["landscape"]})
    path = report(own, tmp_path / "page.html", interactive=True)
    assert path.read_text().count("plotly.js v") == 1
    tab.media()
    tab.open(path)
    drawn = tab.evaluate("document.querySelectorAll('.live .plotly-graph-div .main-svg').length")
    assert drawn > 0
    assert tab.evaluate(OVERFLOW) == 0


PAIRS = [
    ("ink", "paper"), ("soft", "paper"), ("accent", "paper"), ("ink", "shade"), ("soft", "shade"), ("accent", "shade"),
    ("good", "good-shade"), ("bad", "bad-shade"), ("ink", "bad-shade"),
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_closed_form_words_have_the_contrast_of_level_aa(tab: Browser, page: Path, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: (L + 0.05) / (l + 0.05) >= 4.5 for the luminances L > l of words and ground."""
    tab.media(scheme=scheme)
    tab.open(page)
    names = sorted({name for pair in PAIRS for name in pair})
    listed = ", ".join(
        f"['{name}', getComputedStyle(document.documentElement).getPropertyValue('--{name}')]" for name in names
    )
    colours = dict(tab.evaluate(f"[{listed}]"))
    for words, ground in PAIRS:
        high, low = sorted((luminance(colours[name]) for name in (words, ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (words, ground)


def luminance(colour: str) -> float:
    digits = colour.strip().removeprefix("#")
    digits = "".join(2 * own for own in digits) if len(digits) == 3 else digits
    parts = (int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
