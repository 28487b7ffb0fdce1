"""LabelledData whose samples are dicts, tuples or other mappings of tensors."""

from collections import UserDict
from typing import Any

import pytest
import torch

import flatprobe as fp
from tests.helpers.small_data import LABELS


def test_dicts_and_tuples_keep_their_form_in_memory_and_streamed() -> None:
    ids, mask = torch.arange(12).reshape(4, 3), torch.ones(4, 3)
    as_dict = fp.LabelledData({"ids": ids, "mask": mask}, LABELS)
    as_tuple = fp.LabelledData((ids, mask), LABELS)
    items: list[Any] = [({"ids": ids[i], "mask": mask[i]}, int(LABELS[i])) for i in range(4)]
    for data in (as_dict, fp.LabelledData.from_dataset(items)):
        last = list(data.batches(3))[1].inputs
        assert last.keys() == {"ids", "mask"}
        assert torch.equal(last["ids"], ids[3:])
        assert data.describe()["input_shape"] == {"inputs['ids']": [3], "inputs['mask']": [3]}
        with pytest.raises(TypeError, match="a sample is a dict of tensors and has no single shape"):
            _ = data.input_shape
    for data in (as_tuple, fp.LabelledData.from_dataset([((ids[i], mask[i]), LABELS[i]) for i in range(4)])):
        inputs, labels = data.gather(torch.tensor([2]))
        assert isinstance(inputs, tuple)
        assert torch.equal(inputs[0], ids[2:3])
        assert labels.tolist() == [2]


def test_other_mappings_such_as_a_tokenizers_output_are_dicts() -> None:
    ids, mask = torch.arange(12).reshape(4, 3), torch.ones(4, 3, dtype=torch.long)
    items: list[Any] = [(UserDict(ids=ids[i], mask=mask[i]), int(LABELS[i])) for i in range(4)]
    expected = fp.LabelledData({"ids": ids, "mask": mask}, LABELS)
    data = fp.LabelledData(UserDict(ids=ids, mask=mask), LABELS)
    assert type(data.inputs) is dict
    assert data.fingerprint == expected.fingerprint
    assert data.head(2).fingerprint == expected.head(2).fingerprint != expected.fingerprint
    streamed = fp.LabelledData.from_dataset(items)
    for own, other in zip(streamed.batches(3), expected.batches(3), strict=True):
        assert own.inputs.keys() == other.inputs.keys()
        assert all(torch.equal(own.inputs[name], part) for name, part in other.inputs.items())


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            {"ids": torch.zeros(4, 3), "mask": torch.zeros(3, 3)},
            ValueError,
            r"one row per sample each, got the lengths {\"inputs\['ids'\]\": 4",
        ),
        ({"ids": [[1, 2]]}, TypeError, r"inputs\['ids'\] must be a tensor, .*got list"),
        ({}, TypeError, "inputs must be a tensor, or a dict or tuple of tensors, got dict"),
        ({"ids": torch.zeros(5, 3)}, ValueError, "labels must be one per sample, 5, got 4"),
        (
            (torch.zeros(4), torch.full((4, 1), torch.nan)),
            ValueError,
            r"inputs\[1\] of sample 0 must be finite",
        ),
    ],
)
def test_dicts_that_do_not_fit_are_refused(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fp.LabelledData(inputs, LABELS)
