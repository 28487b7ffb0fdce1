"""Recalibration: BatchNorm statistics that are estimated anew at other weights."""

from collections.abc import Mapping
from hashlib import blake2b

import torch
from jaxtyping import Int64
from torch import Tensor

from flatprobe.data import LabelledData
from flatprobe.data.inputs import tensors
from flatprobe.network.modules import BATCH_NORMS
from flatprobe.network.weights import Weights
from flatprobe.risk.empirical import EmpiricalRisk, Risk, RiskFunction
from flatprobe.utils.tensor_files import bytes_of

# Batch statistics depend on the batch size, so that this size does not follow that of the evaluation.
CALIBRATION_BATCH = 256


class Recalibration:
    """The risk with recalibrated BatchNorm statistics: w -> I(w, statistics(w)).

    The BatchNorm layers, and no others, run in training mode, and the statistics are the equally weighted mean over the
    batches. Batches have about `CALIBRATION_BATCH` samples, equal in size up to one sample. They follow a hash of the
    inputs: samples are mixed as in training, whatever the order of the data (folders are sorted by class).

    Cost of a call: 1 forward pass over the calibration data and 1 over the data.

    Args:
        risk: the risk, whose network has BatchNorm layers.
        data: calibration data; None for the data of the risk.

    Raises:
        TypeError: unless the risk is an `EmpiricalRisk`.
        ValueError: for a network without BatchNorm, or calibration data of a single sample.
    """

    def __init__(self, risk: RiskFunction, data: LabelledData | None = None) -> None:
        if not isinstance(risk, EmpiricalRisk):
            msg = f"the risk must be an EmpiricalRisk to recalibrate BatchNorm, got a {type(risk).__name__}"
            raise TypeError(msg)
        if not risk.network.batch_normalised:
            name = risk.network.describe()["class"]
            msg = f"{name} has no BatchNorm to recalibrate. Leave out batch_norm='recalibrate'"
            raise ValueError(msg)
        self.risk = risk
        self.data = risk.data if data is None else data
        if len(self.data) < 2:
            msg = "the calibration data hold a single sample; expected at least 2, since a variance is estimated"
            raise ValueError(msg)
        self._batches = _by_content(self.data).tensor_split(max(1, round(len(self.data) / CALIBRATION_BATCH)))
        self._network = risk.network.copy()  # Only its BatchNorm layers are in training mode.
        self._averages: set[str] = set()
        for name, layer in self._network.module.named_modules():
            if isinstance(layer, BATCH_NORMS):
                layer.train()
                layer.momentum = None  # Selects the cumulative average.
                self._averages |= {f"{name}.{buffer}" for buffer, _ in layer.named_buffers()}

    @property
    def center(self) -> Weights:
        """The weights of the model."""
        return self.risk.center

    def __call__(self, weights: Mapping[str, Tensor], /) -> Risk:
        """Risk at the given weights, with the statistics at these weights."""
        return self.risk({**weights, **self.statistics(weights)})

    def statistics(self, weights: Mapping[str, Tensor]) -> Weights:
        """BatchNorm buffers at the given weights."""
        buffers = {name: torch.zeros_like(self.risk.buffers[name]) for name in self._averages}
        with torch.no_grad():
            for positions in self._batches:
                inputs, _ = self.data.gather(positions)
                self._network(self._network.prepare(inputs), {**weights, **buffers})
                buffers = self._network.buffers_after_pass(buffers)
        return buffers


def _by_content(data: LabelledData) -> Int64[Tensor, " samples"]:
    """Positions of the samples in the order of a hash of their inputs."""
    keys: list[bytes] = []
    for batch in data.batches(CALIBRATION_BATCH):
        parts = [part.flatten(1) if part.ndim > 1 else part[:, None] for part in tensors(batch.inputs)]
        keys += [blake2b(b"".join(map(bytes_of, row)), digest_size=16).digest() for row in zip(*parts, strict=True)]
    return torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64, device="cpu")
