"""Balanced subsets: counts in closed form, a slow reference, nesting, streams, refusals."""

import pytest
import torch

import flatprobe as fp
from tests.helpers.small_data import DATA, Counted

COUNTS = torch.bincount(DATA.labels)
FEWEST = int(COUNTS.min())


@pytest.mark.parametrize("per_class", [1, 3, FEWEST])
def test_each_class_has_its_count_in_turn_closed_form(per_class: int) -> None:
    data = DATA.balanced(per_class, seed=2)
    assert data.labels.tolist() == [*range(DATA.classes)] * per_class
    assert data.classes == DATA.classes
    rows = [row.flatten().tolist() for row in data.inputs]
    whole = [row.flatten().tolist() for row in DATA.inputs]
    places = [whole.index(row) for row in rows]
    assert len({*places}) == len(places)  # without replacement
    assert DATA.labels[places].tolist() == data.labels.tolist()


def test_property_a_smaller_subset_is_the_beginning_of_a_larger_one_and_the_seed_determines_it() -> None:
    small, large = DATA.balanced(2, seed=5), DATA.balanced(FEWEST, seed=5)
    assert torch.equal(large.inputs[: len(small)], small.inputs)
    assert DATA.balanced(2, seed=5).fingerprint == small.fingerprint
    assert DATA.balanced(2, seed=6).fingerprint != small.fingerprint


def test_each_sample_of_a_class_is_drawn_alike() -> None:
    """Binomial: of 8 samples of class 1, each is among 2 drawn ones in a quarter of 400 seeds, within 4 errors."""
    data = fp.LabelledData(torch.arange(11.0)[:, None], torch.tensor([0] * 3 + [1] * 8))
    drawn = torch.cat([data.balanced(2, seed=seed).inputs.flatten()[1::2] for seed in range(400)]).long()
    assert drawn.min() >= 3
    shares = drawn.bincount(minlength=11)[3:] / 400
    assert bool(((shares - 0.25).abs() < 4 * (0.25 * 0.75 / 400) ** 0.5).all())


def test_streams_give_the_same_samples_and_the_source_records_every_draw() -> None:
    stream = fp.LabelledData.from_dataset(Counted()).balanced(3, seed=1)
    data = DATA.balanced(3, seed=1)
    (batch,) = stream.batches(len(stream))
    assert torch.equal(batch.inputs, data.inputs)
    assert torch.equal(stream.labels, data.labels)
    first = {"per_class": 3, "seed": 1, "from": 130}
    assert data.source["balanced"] == [first]
    assert data.balanced(2).source["balanced"] == [first, {"per_class": 2, "seed": 0, "from": len(data)}]
    assert "balanced" not in DATA.source


def test_random_labels_are_balanced_as_they_are() -> None:
    data = DATA.with_random_labels(1.0, seed=0).balanced(2)
    assert data.labels.bincount().tolist() == [2] * DATA.classes


@pytest.mark.parametrize(
    ("per_class", "classes", "message"),
    [
        (3, None, r"per_class must be at most .*, got 3\. Class 1 \('bee'\) has only 2 of 5"),
        (1, 4, r"got 1\. Class 2 has only 0 of 5"),
        (0, None, "per_class must be at least 1, got 0"),
    ],
)
def test_refusals(per_class, classes, message) -> None:
    labels, source = torch.tensor([0, 1, 0, 1, 0]), {"class_names": ["ant", "bee"]}
    data = fp.LabelledData(torch.zeros(5, 1), labels, classes=classes, source=source)
    with pytest.raises(ValueError, match=message):
        data.balanced(per_class)
