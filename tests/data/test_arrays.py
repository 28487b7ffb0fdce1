"""Arrays as inputs and targets: each rule of dtype and shape, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from flatprobe.data.arrays import as_inputs, as_sample, as_targets

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(256, size=(4, 6, 5, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(EIGHT.transpose(0, 3, 1, 2).astype(np.float32) / 255)


@pytest.mark.parametrize("images", [EIGHT, EIGHT.transpose(0, 3, 1, 2), torch.from_numpy(EIGHT)])
def test_closed_form_8_bit_images_are_divided_by_255_with_channels_first(images: Any) -> None:
    assert torch.equal(as_inputs(images, "x"), EXPECTED)


def test_grey_8_bit_images_get_a_channel() -> None:
    grey = as_inputs(EIGHT[..., 0], "x")
    assert torch.equal(grey, EXPECTED[:, :1])
    assert torch.equal(as_inputs(EIGHT[..., :1], "x"), EXPECTED[:, :1])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (RNG.random((3, 2)), torch.float32),
        (RNG.random((3, 2)).astype(np.float16), torch.float16),
        (RNG.random((3, 2)).astype(">f4"), torch.float32),
        (np.arange(6, dtype=np.int16).reshape(3, 2), torch.int64),
        (np.arange(6, dtype=np.uint8).reshape(3, 2), torch.uint8),
        (torch.rand(3, 2, dtype=torch.float64), torch.float64),
        ([[0.5, 1.0]] * 3, torch.float32),
    ],
)
def test_dtypes_of_other_arrays(values: Any, dtype: torch.dtype) -> None:
    found = as_inputs(values, "x")
    assert found.dtype == dtype
    assert torch.allclose(found.double(), torch.as_tensor(np.asarray(values).astype(np.float64)))


def test_nothing_of_the_caller_is_shared_read_only_or_changed() -> None:
    frozen = np.zeros((2, 3), dtype=np.float32)
    frozen.flags.writeable = False
    assert as_inputs(frozen, "x").shape == (2, 3)  # torch warns of arrays that are read-only


def test_images_whose_channels_are_not_known_are_refused() -> None:
    for shape in ((2, 6, 5, 4), (2, 3, 5, 3), (2, 6, 6, 6)):
        with pytest.raises(ValueError, match=r"x must be images of 1 or 3 channels at the second or the last"):
            as_inputs(np.zeros(shape, dtype=np.uint8), "x")
    for values in (np.array([[1, 2], [3]], dtype=object), np.array(["a"])):
        with pytest.raises(TypeError, match=r"x must be an array of numbers, got .*Give all rows one length"):
            as_inputs(values, "x")


def test_samples_are_converted_as_their_batch() -> None:
    assert torch.equal(as_sample(EIGHT[1], "x"), EXPECTED[1])
    own = torch.zeros(2, dtype=torch.uint8)
    assert as_sample(own, "x") is own


def test_targets_are_numbers_or_words_in_alphabetical_order() -> None:
    labels, names = as_targets(np.array(["bee", "ant", "bee"]), "y")
    assert (labels.tolist(), names) == ([1, 0, 1], ["ant", "bee"])
    assert as_targets(["b", "a"], "y")[1] == ["a", "b"]
    for values, expected in ((np.array([True, False]), [1, 0]), (np.array([3, 1], dtype=np.int8), [3, 1])):
        found, none = as_targets(values, "y")
        assert (found.dtype, found.tolist(), none) == (torch.int64, expected, None)
    assert as_targets(np.array([0.5]), "y")[0].dtype == torch.float32
    with pytest.raises(TypeError, match="y must be numbers or words, one per sample, got object"):
        as_targets(np.array([None, "a"], dtype=object), "y")
