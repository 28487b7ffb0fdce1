"""Small data sets that the tests of LabelledData share."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

import flatprobe as fp
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
