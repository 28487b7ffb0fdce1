"""Functional margins and scores: the distance of the outputs from changing class."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData
from flatprobe.functional import losses
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.probes.per_sample import PerSample, map_samples
from flatprobe.utils.arguments import Checked, one_of
from flatprobe.utils.results import settings


@dataclass(frozen=True, kw_only=True, repr=False)
class Margins(PerSample):
    """Margins or scores, in the units of the outputs; negative where misclassified."""

    @property
    def negative(self) -> float:
        """Fraction of samples with a negative margin: misclassified, apart from ties."""
        return float((self.values < 0).double().mean())


@standalone
def functional_margins(model: nn.Module, data: LabelledData, *, batch_size: int | None = None) -> Margins:
    """z_y - max_{j != y} z_j per sample, on the logits z.

    The margin is in the logits' units, so it grows with the scale of the last layer. Divide by a norm before comparing
    networks (`WeightNorms.normalised`). Cost: 1 forward pass.

    Args:
        model: a classifier in eval mode; never changed.
        data: inputs and labels.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `Margins` with values (samples,), negative where misclassified.

    Raises:
        ValueError: if the network or the data cannot be probed (see `flatprobe.network.network.Network`).

    Source: Poggio et al. (2017), section 5.3 and Fig. 17 [T3].

    >>> data = LabelledData(torch.eye(3), torch.tensor([0, 1, 1]))
    >>> functional_margins(nn.Identity().eval(), data).values.tolist()
    [1.0, 1.0, -1.0]
    """

    def kernel(network: Network, batch: Batch) -> Tensor:
        with torch.no_grad():
            return losses.functional_margin(network(batch.inputs).double(), batch.labels)

    values, labels, subject = map_samples(model, data, kernel, batch_size)
    return Margins(values=values, labels=labels, settings=settings("functional_margins", subject))


@standalone
def scores(
    model: nn.Module,
    data: LabelledData,
    *,
    outputs: Checked[Literal["softmax", "logits"]] = "softmax",
    batch_size: int | None = None,
) -> Margins:
    """o = sqrt(2) min_{j != y} (f_y - f_j) per sample.

    The softmax is computed in float64. Cost: 1 forward pass.

    Args:
        model: a classifier in eval mode; never changed.
        data: inputs and labels.
        outputs: f, the `"softmax"` output as in S17 (default), or the `"logits"`.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `Margins` with values (samples,), at most sqrt(2) on the softmax, negative where misclassified.

    Raises:
        ValueError: for unknown outputs.
        ValueError: if the network or the data cannot be probed.

    Source: Sokolic et al. (2017), eq. 33 [S17].
    """
    one_of("outputs", outputs, ("softmax", "logits"))

    def kernel(network: Network, batch: Batch) -> Tensor:
        with torch.no_grad():
            logits = network(batch.inputs).double()
        return losses.score(logits.softmax(1) if outputs == "softmax" else logits, batch.labels)

    values, labels, subject = map_samples(model, data, kernel, batch_size)
    return Margins(values=values, labels=labels, settings=settings("scores", subject, outputs=outputs))
