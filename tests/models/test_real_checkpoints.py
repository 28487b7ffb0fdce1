"""Two checkpoints that others trained and published, loaded as they are (pinned figures).

The wheels come from PyPI; the tests are skipped where they cannot be had.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from tests.helpers import wheels


class DigitNet(nn.Module):
    """Three convolutions with pooling, two linear layers: the network of digit-recognizer-py."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(nn.Linear(1152, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_layers(self.conv_layers(x).flatten(1))


class RNet(nn.Module):
    """The second stage of MTCNN (Zhang et al. 2016): its two class logits; the boxes are not computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.pool(self.prelu2(self.conv2(x)))))
        return self.dense5_1(self.prelu4(self.dense4(x.transpose(1, 3).flatten(1))))


@pytest.fixture(scope="module")
def digits() -> fp.LabelledData:
    return wheels.mnist_5k()


def wrong(model: nn.Module, data: fp.LabelledData) -> int:
    return round(float(fp.EmpiricalRisk(model, data)().error) * len(data))


def test_the_digit_network_has_the_accuracy_that_its_pixels_allow(tmp_path: Path, digits: fp.LabelledData) -> None:
    file = wheels.digit_checkpoint(tmp_path)
    model = fp.load_checkpoint(file, DigitNet)
    assert model.loaded == ()
    assert wrong(fp.Normalised(model, 0.1307, 0.3081), digits) == 15  # 99.70 % of 5,000
    assert wrong(model, digits) == 38  # the accuracy hardly tells it: 99.24 %
    wrapped = fp.load_checkpoint(file, fp.Normalised(DigitNet(), 0.1307, 0.3081))
    assert wrapped.loaded[0] == "prefix network. added to the names"
    assert wrong(wrapped, digits) == 15


def test_the_face_network_knows_all_faces(tmp_path: Path) -> None:
    model = fp.load_checkpoint(wheels.face_checkpoint(tmp_path), RNet)
    data = wheels.lfw_faces()
    assert wrong(fp.Normalised(model, 0.5, 128 / 255), data) == 0


def test_every_kind_of_probe_runs_on_both(tmp_path: Path, digits: fp.LabelledData) -> None:
    digit = fp.Normalised(fp.load_checkpoint(wheels.digit_checkpoint(tmp_path), DigitNet), 0.1307, 0.3081)
    face = fp.Normalised(fp.load_checkpoint(wheels.face_checkpoint(tmp_path), RNet), 0.5, 128 / 255)
    for model, data in ((digit, digits.subset(torch.arange(0, 5000, 50))), (face, wheels.lfw_faces())):
        radius = fp.flatness_radius(fp.EmpiricalRisk(model, data), directions=2)
        assert bool(radius.reached.all())
        assert float(fp.functional_margins(model, data).values.mean()) > 0
        assert bool((fp.jacobian_norms(model, data.head(10)).values > 0).all())
