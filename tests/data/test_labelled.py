"""LabelledData: order, repeatability, labels, fingerprints, and what it refuses."""

import hashlib
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import flatprobe as fp
from tests.helpers.small_data import DATA, LABELS, Counted, labelled_items


def collected(data: fp.LabelledData, size: int) -> tuple[Tensor, Tensor, list[int]]:
    batches = list(data.batches(size))
    inputs = torch.cat([batch.inputs for batch in batches])
    return inputs, torch.cat([batch.labels for batch in batches]), [batch.start for batch in batches]


# Slow obvious reference: the samples one after the other.


@pytest.mark.parametrize("size", [1, 7, 64, 130, 1000])
@pytest.mark.parametrize("streamed", [False, True])
def test_batches_are_all_samples_in_order_at_every_pass(size: int, streamed: bool) -> None:
    data = fp.LabelledData.from_dataset(Counted()) if streamed else DATA
    for _ in range(2):
        inputs, labels, starts = collected(data, size)
        assert torch.equal(inputs, torch.stack([DATA.inputs[i] for i in range(130)]))
        assert torch.equal(labels, DATA.labels)
        assert starts == list(range(0, 130, size))


@pytest.mark.parametrize("streamed", [False, True])
def test_gather_takes_positions_in_the_order_asked(streamed: bool) -> None:
    data = fp.LabelledData.from_dataset(Counted()) if streamed else DATA
    positions = torch.tensor([129, 0, 7, 7])
    inputs, labels = data.gather(positions)
    assert torch.equal(inputs, torch.stack([DATA.inputs[i] for i in positions.tolist()]))
    assert labels.tolist() == [int(DATA.labels[i]) for i in positions.tolist()]


# Properties.


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_become_int64_copies_and_classes_follow_the_largest(dtype: torch.dtype) -> None:
    given = LABELS.to(dtype)
    data = fp.LabelledData(torch.zeros(4, 2), given)
    given[0] = 3
    assert data.labels.dtype == torch.int64
    assert torch.equal(data.labels, LABELS)
    assert data.classes == 3
    assert fp.LabelledData(torch.zeros(4, 2), LABELS, classes=7).classes == 7
    assert data.input_shape == (2,)


def test_int64_labels_are_copied_too() -> None:
    given = LABELS.clone()
    data = fp.LabelledData(torch.zeros(4, 2), given)
    given[0] = 2
    assert torch.equal(data.labels, LABELS)


def test_inputs_are_shared_and_a_change_in_place_is_an_error() -> None:
    inputs = torch.zeros(4, 2)
    data = fp.LabelledData(inputs, LABELS)
    assert data.inputs.data_ptr() == inputs.data_ptr()
    batches, half, before = data.batches(2), data.head(2), data.fingerprint
    next(batches)
    inputs[3, 1] = 1
    for use in (lambda: next(batches), lambda: data.inputs, lambda: data.gather(torch.tensor([0])), data.describe):
        with pytest.raises(RuntimeError, match="the inputs were changed in place after the LabelledData was made"):
            use()
    with pytest.raises(RuntimeError, match="changed in place"):
        _ = half.inputs
    assert fp.LabelledData(inputs, LABELS).fingerprint != before


def test_data_made_in_inference_mode_serve_derivatives() -> None:
    with torch.inference_mode():
        made, labels = torch.rand(6, 64), torch.tensor([0, 1, 2, 0, 1, 2])
        data = fp.LabelledData(made, labels)
        several = [data, data.head(3), data.subset(torch.tensor([2, 1])), data.with_random_labels(0.5)]
        assert torch.equal(next(DATA.batches(3)).inputs, DATA.inputs[:3])
    several.append(fp.LabelledData({"x": made}, labels))
    plain = torch.utils.data.TensorDataset(made, labels)
    several.append(fp.LabelledData.from_dataset(plain))
    for part in several:
        inputs, own = next((batch.inputs, batch.labels) for batch in part.batches(10))
        inputs = inputs["x"] if isinstance(inputs, dict) else inputs
        assert torch.equal(inputs[0], made[2] if len(part) == 2 else made[0])
        weight = torch.ones(64, 3, requires_grad=True)
        torch.nn.functional.cross_entropy(inputs @ weight, own).backward()
    unchanged = fp.LabelledData(made.clone(), labels.clone())
    assert data.fingerprint == unchanged.fingerprint


def test_inputs_that_require_gradients_are_taken() -> None:
    data = fp.LabelledData(torch.ones(4, 2, requires_grad=True), LABELS)
    assert not next(data.batches(2)).inputs.requires_grad


def test_booleans_are_classes() -> None:
    data = fp.LabelledData(torch.zeros(4, 2), LABELS > 0)
    assert (data.labels.tolist(), data.labels.dtype) == ([0, 1, 1, 1], torch.int64)
    items = [(torch.zeros(2), bool(label > 0)) for label in LABELS]
    assert fp.LabelledData.from_dataset(items).labels.tolist() == [0, 1, 1, 1]


def test_items_that_are_dicts_give_their_columns() -> None:
    items = [
        {"x": torch.full((2,), float(k)), "m": torch.ones(2), "y": int(LABELS[k]), "name": "word"} for k in range(4)
    ]
    one = fp.LabelledData.from_dataset(items, columns=("x", "y"))
    assert torch.equal(next(one.batches(4)).inputs, torch.arange(4.0)[:, None].expand(4, 2))
    assert one.labels.tolist() == LABELS.tolist()
    both = fp.LabelledData.from_dataset(items, columns=(["x", "m"], "y"))
    for part, shape in ((both, (4, 2)), (both.head(3), (3, 2)), (both.subset(torch.tensor([3])), (1, 2))):
        inputs = next(part.batches(4)).inputs
        assert {name: tuple(value.shape) for name, value in inputs.items()} == {"x": shape, "m": shape}


def test_inputs_from_0_to_255_are_told() -> None:
    pixels = torch.arange(256.0).repeat(2).reshape(8, 1, 8, 8)
    labels = torch.zeros(8, dtype=torch.long)
    message = r"inputs look like pixels from 0 to 255.*inputs / 255, and fp.Normalised.*\(mean 0 and std 1 / 255"
    for inputs in (pixels, pixels.flatten(1), pixels.double()):
        with pytest.warns(UserWarning, match=message):
            fp.LabelledData(inputs, labels)
    with pytest.warns(UserWarning, match=message):
        fp.LabelledData.from_dataset(TensorDataset(pixels.flip(0).reshape(2, 256), labels[:2]))
    for inputs in (pixels / 255, pixels - 1, pixels + 0.5, pixels * 2, pixels.to(torch.uint8), pixels.reshape(-1, 4)):
        fp.LabelledData(inputs, labels[:1].expand(len(inputs)))  # no warning: it would be an error here


def test_head_is_the_first_samples_with_the_classes_of_the_whole() -> None:
    for data in (fp.LabelledData(torch.arange(4.0)[:, None], LABELS), fp.LabelledData.from_dataset(labelled_items())):
        first = data.head(2)
        assert len(first) == 2
        assert first.classes == 3
        assert torch.equal(next(first.batches(10)).inputs, torch.tensor([[0.0], [1.0]]))
        assert first.labels.tolist() == [0, 1]
        assert first.source["limit"] == 2
        assert "limit" not in data.source
        assert len(data) == 4


@pytest.mark.parametrize("fraction", [0.4, 1.0])
def test_random_labels_commute_with_head_and_are_the_same_streamed(fraction: float) -> None:
    whole = DATA.with_random_labels(fraction, seed=3)
    stream = fp.LabelledData.from_dataset(Counted()).with_random_labels(fraction, seed=3)
    assert torch.equal(whole.head(71).labels, DATA.head(71).with_random_labels(fraction, seed=3).labels)
    assert torch.equal(stream.labels, whole.labels)
    assert torch.equal(collected(stream, 7)[1], whole.labels)
    assert torch.equal(stream.gather(torch.tensor([5, 2]))[1], whole.labels[[5, 2]])
    assert whole.head(71).describe() == DATA.head(71).with_random_labels(fraction, seed=3).describe()
    assert not torch.equal(whole.labels, DATA.with_random_labels(fraction, seed=4).labels)
    assert torch.equal(whole.inputs, DATA.inputs)
    assert whole.source["random_labels"] == [{"fraction": fraction, "seed": 3}]


def test_random_labels_are_uniform_and_as_many_as_asked_for() -> None:
    n, classes, fraction = 20_000, 4, 0.3
    data = fp.LabelledData(torch.zeros(n, 1), torch.zeros(n, dtype=torch.long), classes=classes)
    assert torch.equal(data.with_random_labels(0.0).labels, data.labels)
    changed = float((data.with_random_labels(fraction).labels != 0).double().mean())
    expected = fraction * (classes - 1) / classes  # the new label may be the old one
    assert abs(changed - expected) < 4 * (expected * (1 - expected) / n) ** 0.5
    for count in data.with_random_labels(1.0).labels.bincount(minlength=classes).tolist():
        assert abs(count / n - 1 / classes) < 4 * (3 / 16 / n) ** 0.5
    some, more = data.with_random_labels(0.3).labels, data.with_random_labels(0.6).labels
    assert torch.equal(more[some != 0], some[some != 0])  # a larger fraction replaces the same and more


def test_derived_data_have_their_own_fingerprints_and_say_all_that_was_done() -> None:
    data = fp.LabelledData(DATA.inputs, DATA.labels)
    before = data.fingerprint
    assert data.head(129).fingerprint != before
    twice = data.with_random_labels(0.5, seed=1).with_random_labels(0.25, seed=2)
    assert twice.fingerprint not in {before, data.with_random_labels(0.5, seed=1).fingerprint}
    assert [draw["seed"] for draw in twice.source["random_labels"]] == [1, 2]
    assert data.source == {}


def test_the_fingerprint_sees_every_sample_label_shape_and_dtype() -> None:
    inputs = torch.zeros(5000, 2)
    labels = torch.zeros(5000, dtype=torch.long)
    touched, other = inputs.clone(), labels.clone()
    touched[4999, 1], other[4999] = 1, 1
    variants = [
        fp.LabelledData(inputs, labels, classes=2),
        fp.LabelledData(touched, labels, classes=2),
        fp.LabelledData(inputs, other, classes=2),
        fp.LabelledData(inputs[:, :, None], labels, classes=2),
        fp.LabelledData(inputs.int(), labels, classes=2),
        fp.LabelledData((inputs,), labels, classes=2),
        fp.LabelledData(inputs, labels, classes=2).head(4999),
        fp.LabelledData(inputs, labels, classes=2).with_random_labels(0.5),
    ]
    assert len({data.fingerprint for data in variants}) == len(variants)
    assert fp.LabelledData(inputs.T.contiguous().T, labels, classes=2).fingerprint == variants[0].fingerprint
    strided = fp.LabelledData(torch.arange(8.0)[::2], LABELS)
    assert strided.fingerprint == fp.LabelledData(torch.arange(8.0)[::2].clone(), LABELS).fingerprint
    assert fp.LabelledData(inputs.bfloat16(), labels).fingerprint != variants[0].fingerprint
    assert {data.describe()["fingerprint_of"] for data in variants} == {"all samples"}


def test_the_fingerprint_is_the_hash_it_says_closed_form() -> None:
    data = fp.LabelledData(torch.tensor([[1.5], [2.0]]), torch.tensor([0, 1]))
    digest = hashlib.blake2b(b"inputs (2, 1) torch.float32", digest_size=16)
    digest.update(np.array([1.5, 2.0], dtype=np.float32).tobytes())
    digest.update(b"labels (2,) torch.int64" + np.array([0, 1], dtype=np.int64).tobytes())
    assert data.fingerprint == digest.hexdigest()


def test_the_fingerprint_of_a_stream_covers_its_labels_and_sixteen_samples() -> None:
    inputs, labels = DATA.inputs.clone(), DATA.labels.clone()

    def described(first: Tensor, second: Tensor) -> dict[str, object]:
        return fp.LabelledData.from_dataset(TensorDataset(first, second), classes=10).describe()

    before = described(inputs, labels)
    assert before["fingerprint_of"] == "labels and 16 samples"
    assert before == described(inputs, labels)
    last = inputs.clone()
    last[129] += 1
    label = labels.clone()
    label[77] = (label[77] + 1) % 10
    assert described(last, labels)["fingerprint"] != before["fingerprint"]
    assert described(inputs, label)["fingerprint"] != before["fingerprint"]
    assert described(inputs[:129], labels[:129])["fingerprint"] != before["fingerprint"]


def test_describe_is_json_and_the_repr_says_what_it_is() -> None:
    data = fp.LabelledData(torch.zeros(4, 1, 8, 8), LABELS, source={"name": "mine", "split": "train", "crop": (8, 8)})
    described = data.describe()
    assert described == json.loads(json.dumps(described))
    assert described["samples"] == 4
    assert described["classes"] == 3
    assert described["input_shape"] == [1, 8, 8]
    assert described["source"] == {"name": "mine", "split": "train", "crop": [8, 8]}
    assert repr(data) == "LabelledData(4 samples of (1, 8, 8), 3 classes, in memory, mine, train)"
    dataset = Counted()
    stream = fp.LabelledData.from_dataset(dataset)
    reads = dataset.reads
    assert repr(stream) == "LabelledData(130 samples of (2, 3), labels not read yet, streamed)"
    assert stream.input_shape == (2, 3)
    assert dataset.reads == reads
    with pytest.raises(RuntimeError, match="the inputs are streamed and not available as a whole"):
        _ = stream.inputs


def test_the_label_pass_is_made_once_and_spared_by_given_labels() -> None:
    dataset = Counted()
    data = fp.LabelledData.from_dataset(dataset, labels=DATA.labels, classes=10)
    reads = dataset.reads
    assert torch.equal(data.labels, DATA.labels)
    assert dataset.reads == reads <= 1 + 2 * 16
    late = fp.LabelledData.from_dataset(dataset)
    reads = dataset.reads
    assert torch.equal(late.labels, DATA.labels)
    assert torch.equal(late.labels, DATA.labels)
    assert dataset.reads == reads + 130


def test_a_stream_holds_one_batch_at_a_time() -> None:
    dataset = Counted()
    batches = fp.LabelledData.from_dataset(dataset).batches(7)
    reads = dataset.reads
    next(batches)
    assert dataset.reads == reads + 7


class Noisy(Counted):
    """Draws from every global generator, and returns the clean sample all the same."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        torch.rand(3), np.random.rand(3), random.random()
        return super().__getitem__(index)


def _states_after(dataset: Counted) -> tuple[Any, ...]:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    data = fp.LabelledData.from_dataset(dataset)
    next(data.batches(3))
    data.with_random_labels().describe()
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_the_global_random_states_stay_where_they_are() -> None:
    # beartype itself draws from `random` to pick the list items that it checks, so only the two runs are comparable.
    assert _states_after(Noisy()) == _states_after(Counted())
    torch.manual_seed(1), np.random.seed(1)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist()
    assert _states_after(Noisy())[:2] == expected


def test_a_sequential_loader_gives_its_data_set() -> None:
    dataset = TensorDataset(DATA.inputs, DATA.labels)
    data = fp.LabelledData.from_dataset(DataLoader(dataset, batch_size=32, drop_last=True))
    assert torch.equal(collected(data, 64)[0], DATA.inputs)
    assert len(fp.LabelledData.from_dataset(DataLoader(dataset, batch_size=None))) == 130
