"""Small data sets and networks that tests of several rooms share."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import flatprobe as fp
from flatprobe.utils.rng import generator
from tests.helpers import cases

DATA = cases.data_for((2, 3), samples=130)
LABELS = torch.tensor([0, 1, 2, 1])


class Counted(Dataset[tuple[Tensor, int]]):
    """Items of DATA, recording every read."""

    def __init__(self, data: fp.LabelledData = DATA) -> None:
        self.data, self.reads = data, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        return self.data.inputs[index], int(self.data.labels[index])


def labelled_items() -> list[tuple[Tensor, int]]:
    """Four pairs (x_i = i, y_i)."""
    return [(torch.tensor([float(i)]), int(LABELS[i])) for i in range(4)]


def clusters(count: int = 37, classes: int = 3, shape: tuple[int, ...] = (4,), key: str = "inputs") -> fp.LabelledData:
    """Separable samples: one coordinate is large where the label says."""
    labels = torch.arange(count) % classes
    inputs = torch.rand(count, *shape, generator=generator(key))
    inputs.flatten(1)[torch.arange(count), labels] += 1.0
    return fp.LabelledData(inputs, labels, classes=classes)


def noisy_network() -> nn.Sequential:
    """BatchNorm and dropout in one network."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
