"""Doubts about several networks: one sentence for those with the same cure."""

from flatprobe.studies.doubts import Doubt, Scale, together

USUAL, OWN, OTHER = (Scale(words, (mean,), (0.5,)) for words, mean in (("usual", 0.1), ("own", 0.2), ("other", 0.3)))


def test_closed_form_one_normalization_serves_for_all_that_it_suits() -> None:
    doubts = {
        "a": [Doubt(0.1, better={OWN: 0.98, USUAL: 0.97})],
        "b": [Doubt(0.2, better={USUAL: 0.99, OWN: 0.95})],
        "c": [Doubt(0.15, better={OTHER: 0.99, USUAL: 0.6})],  # 0.6 is better than 0.15, and not good
    }
    first, second = together(doubts)
    assert first[0] == ["a", "b"]
    assert first[1].startswith(
        "accuracy 10.0 % to 20.0 %; with --normalise 0.1 0.5 it is 97.0 % to 99.0 % (usual; in P"
    )
    assert second[0] == ["c"]
    assert second[1] == doubts["c"][0].sentence
    assert second[1].startswith("accuracy 15.0 %; with --normalise 0.3 0.5 it is 99.0 % (other; in Python fp.Norm")


def test_closed_form_equal_totals_are_decided_by_the_networks_own_choices() -> None:
    doubts = {"a": [Doubt(0.1, better={USUAL: 0.98, OWN: 0.98})], "b": [Doubt(0.1, better={OWN: 0.97, USUAL: 0.97})]}
    doubts["c"] = [Doubt(0.1, better={OWN: 0.97, USUAL: 0.97})]
    ((names, sentence),) = together(doubts)
    assert names == ["a", "b", "c"]
    assert "--normalise 0.2 0.5" in sentence


def test_guessing_networks_share_a_sentence_if_all_but_the_accuracy_is_the_same() -> None:
    doubts = {"a": [Doubt(0.1, ", guessing")], "b": [Doubt(0.12, ", guessing")], "c": [Doubt(0.1, ", below")], "d": []}
    assert together(doubts) == [
        (["a", "b"], "accuracy 10.0 % to 12.0 %, guessing"),
        (["c"], "accuracy 10.0 %, below"),
    ]
