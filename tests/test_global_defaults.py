"""torch's global defaults of dtype and device change no data and no number."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import flatprobe as fp
from tests.helpers import cases

DATA = fp.load_data("digits", limit=64)


@contextmanager
def _defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(3, 10)).eval()


MODEL = _network()
PLAIN = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
FUNCTIONS: dict[str, Callable[[], Any]] = {
    "data": lambda: fp.load_data("digits", limit=64).inputs,
    "random labels": lambda: DATA.with_random_labels(0.5).labels,
    "risk": lambda: tuple(vars(fp.EmpiricalRisk(MODEL, DATA)()).values()),
    "flatness": lambda: fp.flatness_radius(fp.EmpiricalRisk(MODEL, DATA), directions=2).radii,
    "slice": lambda: fp.random_slice(fp.EmpiricalRisk(MODEL, DATA), steps=3).loss,
    "interpolation": lambda: (
        fp.interpolate(
            fp.EmpiricalRisk(MODEL, DATA), [MODEL, MODEL], fp.segment(steps=3), batch_norm="interpolate"
        ).loss
    ),
    "margins": lambda: fp.functional_margins(MODEL, DATA).values,
    "jacobians": lambda: fp.jacobian_norms(MODEL, DATA).values,
    "geometric": lambda: [(m := fp.geometric_margins(MODEL, DATA.head(8))).lower, m.upper],
    "robustness": lambda: fp.gaussian_robustness(MODEL, DATA, draws=2).error,
    "smoothing": lambda: fp.smoothed_certificate(MODEL, DATA.head(4), draws=20, selection=5).radius,
    "points": lambda: fp.adversarial_points(MODEL, DATA.head(8)).points,
    "regions": lambda: fp.decision_regions(MODEL, DATA.inputs[:3], steps=5).margins,
    "adversarial": lambda: fp.adversarial_accuracy(MODEL, DATA.head(8), budgets=[0.1]).accuracy,
    "norms": lambda: fp.weight_norms(MODEL, DATA.input_shape).layers,
    "eigenvalues": lambda: fp.hessian_eigenvalues(fp.EmpiricalRisk(MODEL, DATA)).eigenvalues,
    "trace": lambda: fp.hessian_trace(fp.EmpiricalRisk(MODEL, DATA), draws=3).forms,
    "sharpness": lambda: fp.worst_case_sharpness(fp.EmpiricalRisk(MODEL, DATA), radius=0.1, steps=2).increases,
    "noise": lambda: fp.gradient_noise(fp.EmpiricalRisk(MODEL, DATA), batch_size=8, draws=3).squared_lengths,
    "lockstep": lambda: [*fp.train_many([PLAIN, PLAIN], DATA, epochs=1)[1].model.parameters()],
    "training": lambda: [*fp.train(MODEL, DATA, epochs=1, penalties=[(0.1, "spectral_norm")]).model.parameters()],
}


@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.bfloat16, "cpu"), (torch.float64, "cpu"), (torch.float32, "meta")]
)
def test_pictures_are_float32_on_the_cpu(dtype: torch.dtype, device: str) -> None:
    pixels = [np.random.default_rng(k).integers(256, size=(4, 4), dtype=np.uint8) for k in range(2)]
    columns = {"image": [Image.fromarray(picture) for picture in pixels], "label": [0, 1]}
    table = datasets.Dataset.from_dict(columns)
    expected = torch.from_numpy(np.stack(pixels)).float()[:, None] / 255
    with _defaults(dtype, device):
        data = fp.load_data(table)
        streamed = next(fp.load_data(table, stream=True).batches(2))
    for found in (data.inputs, streamed.inputs):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "device"), [(torch.float16, "cpu"), (torch.float64, "cpu"), (torch.float32, "meta")])
def test_nothing_depends_on_the_global_defaults(name: str, dtype: torch.dtype, device: str) -> None:
    expected = FUNCTIONS[name]()
    with _defaults(dtype, device):
        found = FUNCTIONS[name]()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_network_without_values_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no values in .linear1\.weight., which is on the device meta; expected weights"
    ):
        fp.functional_margins(cases.mlp().to("meta"), DATA)
