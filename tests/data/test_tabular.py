"""Tables without images: tokens, one column of numbers, and what is not clear."""

import datasets
import pytest
import torch

import flatprobe as fp

LABELS = ["pos", "neg", "pos"]


def table(**columns: list[object]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({**columns, "label": LABELS})


def test_tokens_are_a_dictionary_of_the_tokenizers_columns() -> None:
    ids, mask = [[1, 2], [3, 4], [5, 0]], [[1, 1], [1, 1], [1, 0]]
    data = fp.load_data(table(text=["a", "b", "c"], input_ids=ids, attention_mask=mask, length=[2, 2, 1]))
    assert isinstance(data.inputs, dict)
    assert {name: part.tolist() for name, part in data.inputs.items()} == {"input_ids": ids, "attention_mask": mask}
    assert (data.labels.tolist(), data.source["class_names"]) == ([1, 0, 1], ["neg", "pos"])
    assert len(fp.load_data(table(input_ids=ids), limit=2)) == 2


def test_the_only_column_of_numbers_is_the_input() -> None:
    values = [[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]]
    data = fp.load_data(datasets.DatasetDict(train=table(text=["a", "b", "c"], features=values)))
    assert isinstance(data.inputs, torch.Tensor)
    assert data.inputs.tolist() == values
    assert data.source["input_columns"] == ["features"]


def test_what_is_not_clear_is_refused() -> None:
    with pytest.raises(ValueError, match="several columns beside the labels 'label': 'a', 'b'"):
        fp.load_data(table(a=[1, 2, 3], b=[1, 2, 3]))
    with pytest.raises(TypeError, match=r"the column 'input_ids' must be an array of numb.*Give all rows one length"):
        fp.load_data(table(input_ids=[[1], [1, 2], [3]]))
    with pytest.raises(ValueError, match=r"no column holds images; expected image_column=.*\('text', 'label'\)"):
        fp.load_data(table(text=["a", "b", "c"]))
