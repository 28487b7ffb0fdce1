"""Preparation of images: Pillow as the slow reference, the order of the changes, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

import flatprobe as fp
from flatprobe.data.preparation import Preparation, crop_center, resized

RNG = np.random.default_rng(0)
PIXELS = RNG.random((3, 24, 20), dtype=np.float32)


@pytest.mark.parametrize("sides", [(7, 11), (24, 20), (30, 40), (5, 40), (1, 1)])
def test_slow_reference_resizing_is_pillows_bilinear_filter_in_floating_point(sides: tuple[int, int]) -> None:
    expected = np.stack(
        [np.asarray(Image.fromarray(channel, "F").resize(sides[::-1], Image.Resampling.BILINEAR)) for channel in PIXELS]
    )
    found = resized(torch.from_numpy(PIXELS), sides)
    assert found.shape == (3, *sides)
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-6)


def test_slow_reference_8_bit_images_differ_by_pillows_rounding_alone() -> None:
    eight = RNG.integers(256, size=(24, 20), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(eight).resize((11, 7), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    found = resized(torch.from_numpy(eight)[None].float() / 255, (7, 11))
    assert (found[0] - torch.from_numpy(expected)).abs().max() <= 1 / 255


def test_closed_form_grey_colour_and_the_order_resize_before_crop() -> None:
    image = torch.tensor([1.0, 0.5, 0.25])[:, None, None].expand(3, 4, 4)
    grey = Preparation(greyscale=True)(image, "image")
    assert torch.allclose(grey, torch.full((1, 4, 4), 0.299 + 0.587 / 2 + 0.114 / 4))
    assert torch.equal(Preparation(colour=True)(grey, "image"), grey.expand(3, 4, 4))
    assert torch.equal(Preparation(colour=True)(image, "image"), image)
    assert torch.equal(Preparation(greyscale=True)(grey, "image"), grey)
    wide = torch.from_numpy(PIXELS)
    both = Preparation(resize=(12, 10), crop=4)
    assert torch.equal(both(wide, "image"), crop_center(resized(wide, (12, 10)), 4, "image"))
    assert both.describe() == {"resize": [12, 10], "crop": 4}
    assert not Preparation()
    assert torch.equal(Preparation()(wide.to(torch.uint8), "image"), wide.to(torch.uint8))


def test_property_a_batch_is_its_images() -> None:
    images, prepare = torch.rand(1003, 3, 8, 8), Preparation(resize=5, crop=3, greyscale=True)
    whole = prepare(images, "images")
    assert whole.shape == (1003, 1, 3, 3)
    for index in (0, 999, 1000, 1002):
        assert torch.allclose(whole[index], prepare(images[index], "image"), atol=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="greyscale and colour must not both be True"):
        Preparation(greyscale=True, colour=True)
    for resize in (0, (0, 3), (3, 0)):
        with pytest.raises(ValueError, match="resize must be at least 1, got 0"):
            fp.load_data("digits", resize=resize)
    with pytest.raises(ValueError, match=r"resize must be given for floating images .*each input has the shape \(5, 4"):
        fp.load_data((torch.rand(5, 4), torch.arange(5)), resize=3)
    with pytest.raises(ValueError, match=r"crop is 5, and each digit is 4 high and 4 wide"):
        fp.load_data("digits", resize=4, crop=5)


def test_the_digits_take_resize_and_colour() -> None:
    data = fp.load_data("digits", limit=20, resize=16, colour=True)
    assert data.input_shape == (3, 16, 16)
    assert data.source["resize"] == [16, 16]
    assert data.source["colour"] is True
