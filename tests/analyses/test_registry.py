"""The registry: ids, order, and what is refused."""

from collections import Counter
from types import SimpleNamespace

import pytest

from analyses.open import OPEN
from analyses.registry import collect, find, registry
from analyses.reproduction import Reproduction, Unavailable


def item(name: str) -> Unavailable:
    return Unavailable(id=name, source="s", claim="c", reason="r")


def module(**names: object) -> SimpleNamespace:
    return SimpleNamespace(__name__="m", **names)


def test_items_come_from_three_names_closed_form() -> None:
    first = module(REPRODUCTION=item("a"), UNAVAILABLE=(item("b"),))
    second = module(REPRODUCTIONS=(item("c"), item("d")))
    assert list(collect([first, second, module(OTHER=1)])) == ["a", "b", "c", "d"]


def test_an_id_that_two_items_share_is_refused() -> None:
    with pytest.raises(ValueError, match="ids must differ, got 'a' twice, again in m"):
        collect([module(REPRODUCTION=item("a")), module(REPRODUCTIONS=(item("b"), item("a")))])


def test_every_id_names_its_source_and_says_what_is_claimed_property() -> None:
    items = registry()
    assert all(name == own.id for name, own in items.items())
    assert all(own.source and own.claim for own in items.values())
    assert all(own.reason for own in items.values() if isinstance(own, Unavailable))
    assert all("quick" in own.presets for own in items.values() if isinstance(own, Reproduction))


def test_the_list_covers_every_row_of_the_sources_closed_form() -> None:
    """Tables, figures, claims and demonstrations per source, as counted on reading them."""
    counted = {"T3": 37, "S17": 21, "N20": 7, "O20": 22, "B19": 6}
    found = Counter(name.partition("-")[0] for name in registry())
    assert [source for source, rows in counted.items() if found[source] < rows] == []


def test_no_open_item_has_a_file_property() -> None:
    stale = [own.id for own in OPEN if registry()[own.id] is not own]
    assert stale == [], "remove these from analyses/open.py"


def test_ids_are_found_in_the_given_order_and_others_are_refused() -> None:
    names = [name for name, own in registry().items() if isinstance(own, Reproduction)][:2][::-1]
    assert [own.id for own in find(names)] == names
    with pytest.raises(ValueError, match="the ids must be those of `python -m analyses list`, got T3-F99"):
        find([*names, "T3-F99"])
    with pytest.raises(ValueError, match="B19-6 is unavailable: the slides do not give"):
        find(["B19-6"])
