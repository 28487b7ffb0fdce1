"""The memory layout that a network runs in: it changes no value, and no heap is corrupted."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.weights import weights_of
from tests.helpers import cases
from tests.helpers.references import loss_and_error

DATA = cases.data_for((1, 8, 8))


class Strided(nn.Module):
    """Reads memory by its strides: another function in channels-last layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        return self.head(z.as_strided((len(x), 256), (256, 1)))


class Viewed(Strided):
    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        return self.head(z.view(z.size(0), -1))


@pytest.mark.parametrize("kind", [Strided, Viewed])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strided", [False, True])
def test_a_layout_is_an_optimisation_that_no_network_is_refused_for(
    kind: type[nn.Module], dtype: torch.dtype, strided: bool
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind().to(dtype).eval()
    data = cases.data_for((1, 8, 8), samples=20)
    inputs = data.inputs.to(dtype)
    if strided:
        inputs = inputs.repeat_interleave(2, 0)[::2].contiguous(memory_format=torch.channels_last)
    labels = model(data.inputs.to(dtype)).argmax(1)
    data = fp.LabelledData(inputs, labels, classes=10)
    assert fp.EmpiricalRisk(model, data)().error == 0
    margins = fp.geometric_margins(model, data, lower=("spectral",) if kind is Viewed else (), upper=("ddn",), steps=5)
    assert bool((margins.upper > 0).all())
    assert fp.EmpiricalRisk(model, data).describe()["network"]["layout"] == "contiguous"


# torch 2.13's oneDNN without AVX-512, which this setting leaves unused; where the processor lacks it anyway, as there.
CRASHES = """
import torch
from torch import nn
import flatprobe as fp
torch.set_num_threads(1)
model = fp.models.resnet((1, 8, 8), depth=10, width=4)
data = fp.LabelledData(torch.rand(64, 1, 8, 8), torch.arange(64) % 10)
class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.weight = nn.Conv2d(1, 4, 3, padding=1), nn.Parameter(torch.randn(8, 4, 1, 1))
        self.head = nn.Linear(8, 10)
    def forward(self, x):
        return self.head(nn.functional.conv2d(self.conv(x).relu(), self.weight, stride=2).mean((2, 3)))
for network in (model, Functional()):
    run = fp.train(network, data, epochs=12, batch_size=16)
    risk = fp.EmpiricalRisk(run.model, fp.LabelledData(
        data.inputs.contiguous(memory_format=torch.channels_last), data.labels))
    for _ in range(20):
        risk.gradient()
    fp.hessian_trace(risk, draws=4)
    assert risk.describe()["network"]["layout"] == "contiguous"
print("survived")
"""


def test_regression_strided_pointwise_convolutions_do_not_corrupt_the_heap_without_avx512() -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CRASHES], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "survived"


@pytest.mark.parametrize(
    ("layer", "layout"),
    [
        (nn.Conv2d(4, 4, 1, stride=2), "contiguous"),
        (nn.Conv2d(4, 16, 1, stride=(1, 2)), "contiguous"),
        (nn.Conv2d(16, 16, 1, stride=2, groups=4), "contiguous"),
        (nn.Conv2d(4, 4, 1), "channels last"),
        (nn.Conv2d(4, 4, 3, stride=2), "channels last"),
        (nn.Conv2d(8, 4, 1, stride=2), "channels last"),
    ],
)
def test_the_layout_is_given_up_for_strided_pointwise_convolutions_of_few_channels_only(
    layer: nn.Module, layout: str
) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, layer.in_channels, 3, padding=1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3)
    )  # fmt: skip
    images = torch.rand(12, 1, 6, 6)
    model(images)
    risk = fp.EmpiricalRisk(model.eval(), fp.LabelledData(images, torch.arange(12) % 3))
    assert risk.describe()["network"]["layout"] == layout


def test_convolutions_followed_by_a_view_are_run_in_the_usual_layout() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.layer = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.conv(x).view(len(x), -1))

    model = Viewed().double().eval()
    risk = fp.EmpiricalRisk(model, DATA)
    loss, _ = loss_and_error(model, weights_of(model), DATA)
    assert risk().loss == pytest.approx(loss, rel=1e-9)
    assert risk.describe()["network"]["layout"] == "contiguous"
    assert fp.EmpiricalRisk(cases.cnn(), DATA).describe()["network"]["layout"] == "channels last"
    assert fp.train(model, DATA, epochs=1).history[0]["train_loss"] > 0
