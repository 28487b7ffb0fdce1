"""Normalization and size of a checkpoint's folder, in pixels from 0 to 1."""

import json
from pathlib import Path

import pytest
import torch

import flatprobe as fp
from flatprobe.models.preprocessing import Preprocessing, preprocessing

PROCESSOR = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "size": {"height": 32, "width": 24}}


def write(folder: Path, content: object, name: str = "preprocessor_config.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("factor", [None, 1 / 255, 1 / 127.5, 1.0])
@pytest.mark.parametrize("rescale", [True, False])
def test_slow_reference_the_processor_of_transformers(tmp_path: Path, factor: float | None, rescale: bool) -> None:
    """transformers' own image processor on pixels of 0 to 255 against `fp.Normalised` on [0, 1]."""
    from transformers import ViTImageProcessorPil

    changes = {"do_rescale": rescale} | ({} if factor is None else {"rescale_factor": factor})
    processor = ViTImageProcessorPil(**PROCESSOR, **changes, do_resize=False)
    processor.save_pretrained(tmp_path)
    pixels = torch.randint(0, 256, (3, 32, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = torch.as_tensor(processor(pixels.numpy(), input_data_format="channels_first")["pixel_values"][0])
    found = preprocessing(tmp_path).normalisation
    assert found is not None
    network = fp.Normalised(torch.nn.Identity(), *found)
    torch.testing.assert_close(network(pixels[None] / 255)[0], expected, rtol=1e-4, atol=1e-4)


def test_sizes(tmp_path: Path) -> None:
    assert preprocessing(write(tmp_path, PROCESSOR)).size == (32, 24)
    assert preprocessing(write(tmp_path, PROCESSOR | {"size": {"shortest_edge": 20}})).size == (20, 20)
    assert preprocessing(write(tmp_path, PROCESSOR | {"size": 18})).size == (18, 18)
    cropped = PROCESSOR | {"do_center_crop": True, "crop_size": {"height": 16, "width": 12}}
    assert preprocessing(write(tmp_path, cropped)).size == (16, 12)
    assert preprocessing(write(tmp_path, PROCESSOR | {"do_resize": False})).size is None
    assert preprocessing(write(tmp_path, PROCESSOR | {"size": {"longest_edge": 9}})).size is None


def test_a_processor_that_changes_nothing_and_no_processor(tmp_path: Path) -> None:
    assert preprocessing(tmp_path) == Preprocessing(None, None)
    assert preprocessing(write(tmp_path, {"do_normalize": False})).normalisation is None
    assert preprocessing(write(tmp_path, {"do_normalize": False, "do_rescale": False})).normalisation == (
        (0.0,), (0.003921568627,),
    )  # fmt: skip


def test_the_configuration_of_timm(tmp_path: Path) -> None:
    config = {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "input_size": [3, 20, 30]}
    write(tmp_path, {"architecture": "resnet18", "pretrained_cfg": config}, "config.json")
    assert preprocessing(tmp_path) == Preprocessing(((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)), (20, 30))
    write(tmp_path, {"pretrained_cfg": config}, "config.json")  # of another program
    assert preprocessing(tmp_path) == Preprocessing(None, None)


@pytest.mark.parametrize(
    "changes",
    [{"image_mean": "a"}, {"image_std": [0, 1, 1]}, {"image_std": [1, 1]}, {"image_mean": [float("nan")] * 3},
     {"rescale_factor": 0}, {"rescale_factor": "x"}, {"image_mean": []}],
)  # fmt: skip
def test_numbers_that_are_none(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"mean and std in .*preprocessor_config\.json must be finite numbers"):
        preprocessing(write(tmp_path, PROCESSOR | changes))
