"""The families of networks and data that the property tests run over."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe import models
from flatprobe.data import LabelledData
from flatprobe.network.weights import Weights
from flatprobe.risk.empirical import Risk
from flatprobe.utils import rng


def data_for(shape: tuple[int, ...], *, samples: int = 130, classes: int = 10, seed: int = 0) -> LabelledData:
    """Random pixels in [0, 1] with random labels."""
    generator = rng.generator(seed, "case")
    inputs = torch.rand((samples, *shape), generator=generator)
    return LabelledData(inputs, torch.randint(classes, (samples,), generator=generator), classes=classes)


def mlp(shape: tuple[int, ...] = (1, 8, 8), *, seed: int = 0, widths: tuple[int, ...] = (24, 16)) -> nn.Module:
    return models.mlp(shape, widths=widths, seed=seed).double().eval()


def cnn(*, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)]
        return nn.Sequential(*layers).double().eval()


def residual(*, seed: int = 0) -> nn.Module:
    """A ResNet with BatchNorm whose running statistics are not the initial ones."""
    network = models.resnet((1, 8, 8), depth=10, width=4, seed=seed).double()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network(torch.rand(64, 1, 8, 8, dtype=torch.float64))
    return network.eval()


def normalised() -> nn.Module:
    return models.Normalised(models.mlp((1, 8, 8), widths=(16,)), 0.3, 0.4).double().eval()


NETWORKS = {"mlp": mlp, "cnn": cnn, "residual": residual, "normalised": normalised}


class Affine(nn.Module):
    """z = W x + b: everything about it is known in closed form."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def affine(classes: int = 5, inputs: int = 7, *, seed: int = 0) -> Affine:
    generator = rng.generator(seed, "affine")
    weight = torch.randn(classes, inputs, generator=generator, dtype=torch.float64)
    return Affine(weight, torch.randn(classes, generator=generator, dtype=torch.float64))


class Bowl:
    """I(w) = ||w - w*||^2 / 2 with w* the center: the radius along any unit direction is sqrt(2 epsilon)."""

    def __init__(self, center: Weights, curvature: float = 1.0) -> None:
        self.center, self.curvature, self.calls = center, curvature, 0

    def __call__(self, weights: Weights) -> Risk:
        self.calls += 1
        squares = sum(float((weights[name] - w).square().sum()) for name, w in self.center.items())
        return Risk(loss=self.curvature * squares / 2, error=0.0)


class Quadratic:
    """I(w) = <w - w*, A (w - w*)> / 2 + <b, w - w*>, A on all weights in order, w* the center: all is known of it."""

    def __init__(self, center: Weights, matrix: Tensor, slope: Tensor | None = None) -> None:
        self.center, self.matrix = center, matrix
        self.slope = torch.zeros(len(matrix), dtype=matrix.dtype) if slope is None else slope

    def __call__(self, weights: Weights) -> Risk:
        v = self._flat(weights) - self._flat(self.center)
        return Risk(loss=float(v @ self.matrix @ v / 2 + self.slope @ v), error=0.0)

    def gradient(self, weights: Weights) -> Weights:
        return self._shaped(self.matrix @ (self._flat(weights) - self._flat(self.center)) + self.slope)

    def hvp(self, _weights: Weights, direction: Weights) -> Weights:
        whole = {name: direction.get(name, torch.zeros_like(w)) for name, w in self.center.items()}
        return self._shaped(self.matrix @ self._flat(whole))

    def _flat(self, weights: Weights) -> Tensor:
        return torch.cat([weights[name].flatten() for name in self.center])

    def _shaped(self, vector: Tensor) -> Weights:
        parts = vector.split([w.numel() for w in self.center.values()])
        return {name: part.view_as(w) for part, (name, w) in zip(parts, self.center.items(), strict=True)}


def smooth(*, seed: int = 0) -> nn.Module:
    """A small network with curvature everywhere: tanh in place of ReLU."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)]
        return nn.Sequential(*layers).double().eval()


def normalised_network(**options: object) -> nn.Module:
    """Convolutions of every geometry, BatchNorm in one and two dimensions, a skip; tanh, which has a curvature."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(4, **options)
            self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1, dilation=2, groups=2)
            self.skip = nn.Conv2d(4, 4, 1, stride=2)
            self.flat = nn.BatchNorm1d(36)
            self.head = nn.Linear(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.norm(self.first(x)))
            x = F.relu(self.second(F.pad(x, (1, 1, 1, 1)))) + self.skip(x)
            return self.head(self.flat(x.flatten(1)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().double().train()


def batch(samples: int = 6) -> tuple[Tensor, Tensor]:
    """What `normalised_network` takes: (samples, 2, 5, 5) inputs, and labels of three classes."""
    inputs = torch.randn(samples, 2, 5, 5, generator=rng.generator(0, "passes"), dtype=torch.float64)
    return inputs, torch.arange(samples) % 3


class Attention(nn.Module):
    """A transformer's encoder layer in eval mode, whose fused kernels have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
            self.head = nn.Linear(8, 4)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.flatten(1).unflatten(1, (-1, 8))).mean(1))
