"""BatchNorm statistics away from the weights that they were gathered at."""

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

# The statistics of a batch depend on its size, so the batches are of about this one, independent of the evaluation's.
CALIBRATION_BATCH = 256


class Recalibration:
    """The risk with BatchNorm statistics gathered anew at every point: w -> I(w, statistics(w)).

    One pass over the calibration data in batches of about `CALIBRATION_BATCH`, of equal size up to one sample, with the
    BatchNorm layers (and no others) in training mode and their running averages replaced by the equally weighted mean
    over the batches. The samples are batched in the order of a hash of their inputs: mixed as in training, and the same
    for the same samples in whatever order they come (folders are sorted by class).

    Args:
        risk: the risk whose network has BatchNorm layers.
        data: calibration data; None takes the risk's own.

    Raises:
        TypeError: if the risk is another callable than an `EmpiricalRisk`.
        ValueError: if the network has no BatchNorm, or the calibration data hold a single sample.
    """

    def __init__(self, risk: RiskFunction, data: LabelledData | None = None) -> None:
        if not isinstance(risk, EmpiricalRisk):
            msg = f"BatchNorm can be recalibrated for an EmpiricalRisk only, and the risk is a {type(risk).__name__}"
            raise TypeError(msg)
        if not risk.network.batch_normalised:
            msg = f"{risk.network.describe()['class']} has no BatchNorm to recalibrate; leave the policy out"
            raise ValueError(msg)
        self.risk = risk
        self.data = risk.data if data is None else data
        if len(self.data) < 2:
            msg = "the calibration data hold a single sample; expected at least 2, since a variance is estimated"
            raise ValueError(msg)
        self._batches = _by_content(self.data).tensor_split(max(1, round(len(self.data) / CALIBRATION_BATCH)))
        self._network = risk.network.copied()  # whose BatchNorm layers, and no others, are in training mode
        self._averages: set[str] = set()
        for name, layer in self._network.module.named_modules():
            if isinstance(layer, BATCH_NORMS):
                layer.train()
                layer.momentum = None  # the cumulative average
                self._averages |= {f"{name}.{buffer}" for buffer, _ in layer.named_buffers()}

    @property
    def center(self) -> Weights:
        """The model's own weights."""
        return self.risk.center

    def __call__(self, weights: Mapping[str, Tensor], /) -> Risk:
        """The risk at these weights with the statistics that belong to them."""
        return self.risk({**weights, **self.statistics(weights)})

    def statistics(self, weights: Mapping[str, Tensor]) -> Weights:
        """The BatchNorm buffers at these weights."""
        buffers = {name: torch.zeros_like(self.risk.buffers[name]) for name in self._averages}
        with torch.no_grad():
            for positions in self._batches:
                inputs, _ = self.data.gather(positions)
                self._network(self._network.prepare(inputs), {**weights, **buffers})
                buffers = self._network.left(buffers)
        return buffers


def _by_content(data: LabelledData) -> Int64[Tensor, " samples"]:
    """The samples' positions in the order of a hash of their inputs, which only the samples themselves decide."""
    keys: list[bytes] = []
    for batch in data.batches(CALIBRATION_BATCH):
        parts = [part.flatten(1) if part.ndim > 1 else part[:, None] for part in tensors(batch.inputs)]
        keys += [blake2b(b"".join(map(bytes_of, row)), digest_size=16).digest() for row in zip(*parts, strict=True)]
    return torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64, device="cpu")
