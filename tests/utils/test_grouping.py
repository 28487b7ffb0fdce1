"""Sentences about several networks, told once."""

from flatprobe.utils.grouping import caption, grouped


def test_closed_form_sentences_that_differ_in_the_name_alone_are_one() -> None:
    said = [(f"epoch-{k}", f"runs/epoch-{k}.pt is of another width") for k in (1, 2, 12)]
    assert grouped([*said, ("x", "no such file")], "checkpoints") == [
        "3 checkpoints (epoch-1, epoch-2, epoch-12): runs/epoch-1.pt is of another width",
        "x: no such file",
    ]
    assert grouped([("a", "one"), ("a", "two")]) == ["a: one", "a: two"]
    assert len(grouped([("a", "a1 is a layer of a.pt"), ("b", "a1 is a layer of b.pt")])) == 1  # "a" is a word too
    assert len(grouped([("a", "runs/a is bad"), ("b", "runs/b is bad"), ("c", "runs/c is good")])) == 2


def test_many_names_are_counted() -> None:
    assert caption(["a"]) == "a"
    assert caption([f"e{k}" for k in range(6)]) == "6 networks (e0, e1, e2, e3 and 2 more)"
