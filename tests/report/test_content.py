"""Results in any form become one page."""

from collections.abc import Callable
from pathlib import Path

import pytest

import flatprobe as fp
from flatprobe.report.content import drawn_groups, gather
from flatprobe.studies.comparison import Comparison
from tests.plotting.test_plotting import flatness, margins_of

MARGINS = {"a": margins_of(0), "b": margins_of(1)}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda _folder: MARGINS["a"], {"functional_margins": ["the network"]}),
        (lambda _folder: MARGINS, {"functional_margins": ["a", "b"]}),
        (lambda _folder: {"m": MARGINS}, {"m": ["a", "b"]}),
        (lambda _folder: Comparison(results={"m": dict(MARGINS)}, groups={"a": "x", "b": "y"}), {"m": ["a", "b"]}),
        (lambda folder: Comparison(results={"m": dict(MARGINS)}, groups={}).save(folder), {"m": ["a", "b"]}),
        (
            lambda _folder: {"a": margins_of(0), "b": flatness([1.0, 2.0])},
            {"functional_margins": ["a"], "flatness_radius": ["b"]},
        ),
    ],
)
def test_every_form_of_results_is_taken(
    make: Callable[[Path], object], expected: dict[str, list[str]], tmp_path: Path
) -> None:
    results = make(tmp_path / "records")
    found = gather(results)
    assert {key: list(own) for key, own in found.results.items()} == expected
    page = fp.report(results, tmp_path / "page.html")
    assert all(name in page.read_text() for names in expected.values() for name in names)


def test_the_callers_groups_survive_the_folder(tmp_path: Path) -> None:
    groups = {"wide-1": "control", "wide-2": "treated", "deep-1": "control", "deep-2": "treated"}
    results = {"functional_margins": {name: margins_of(k) for k, name in enumerate(groups)}}
    Comparison(results=dict(results), groups=groups).save(tmp_path / "records")
    assert gather(tmp_path / "records").groups == groups
    page = fp.report(tmp_path / "records", tmp_path / "page.html").read_text()
    assert "the networks of control" in page or "the networks of treated" in page
    own = {name: name.split("-")[0] for name in groups}
    assert gather(tmp_path / "records", own).groups == own


def test_groups_that_tell_nothing_get_no_colour() -> None:
    assert drawn_groups({}) is None
    assert drawn_groups({"a": "x", "b": "x", "c": "c"}) == {"a": "x", "b": "x", "c": "c"}


def test_the_room_is_called_as_the_function_is(tmp_path: Path) -> None:
    import flatprobe.report as room

    assert room(MARGINS, tmp_path / "page.html").is_file()
    assert fp.report(MARGINS, tmp_path / "other.html").is_file()


@pytest.mark.parametrize(
    ("results", "error", "words"),
    [
        (3, TypeError, "results must be a comparison, a result, a mapping or a folder of records, got one of type int"),
        (
            {"m": {"a": 3}},
            TypeError,
            r"results\['m'\] must be a result or a mapping from networks to results, got one of type dict",
        ),
        ({}, ValueError, "there are no records to report"),
    ],
)
def test_anything_else_is_refused(results: object, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        fp.report(results, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_version_is_refused_by_its_version(tmp_path: Path) -> None:
    Comparison(results={"m": dict(MARGINS)}, groups={}).save(tmp_path)
    (tmp_path / "comparison.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"must have the format 1, got 99\. It is of another version of flatprobe"):
        fp.report(tmp_path, tmp_path / "page.html")
