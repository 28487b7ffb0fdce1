"""BatchNorm statistics away from the weights that they were gathered at."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flatprobe.data import LabelledData
from flatprobe.modules import BATCH_NORMS
from flatprobe.risk import EmpiricalRisk, Risk, RiskFunction
from flatprobe.weights import Weights

# The statistics of a batch depend on its size, so this one is fixed and independent of the evaluation's batch size.
CALIBRATION_BATCH = 256


class Recalibration:
    """The risk with BatchNorm statistics gathered anew at every point: w -> I(w, statistics(w)).

    One pass over the calibration data in batches of `CALIBRATION_BATCH`, with the BatchNorm layers (and no others) in
    training mode and their running averages replaced by the equally weighted mean over the batches; a shorter last
    batch is left out where there is a whole one.

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
        whole = len(self.data) // CALIBRATION_BATCH
        with torch.no_grad():
            for index, batch in enumerate(self.data.batches(CALIBRATION_BATCH)):
                if index >= max(whole, 1):
                    break
                self._network(self._network.prepare(batch.inputs), {**weights, **buffers})
                buffers = self._network.left(buffers)
        return buffers
