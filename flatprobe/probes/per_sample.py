"""The core of the input-space probes: one kernel mapped over the data in order, one value per sample."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData, check_classes, parts_of
from flatprobe.data.inputs import fix_of_integers, tensors
from flatprobe.network.checks import check_batch, check_logits
from flatprobe.network.network import Network
from flatprobe.utils.results import Result


@dataclass(frozen=True, kw_only=True, repr=False)
class PerSample(Result):
    """One value per sample, in the data's order: the table's columns are sample, label and value.

    `numpy.asarray(result)` is the values.

    Attributes:
        values: (samples,) float64, on the CPU.
        labels: (samples,) labels of the data.
    """

    _columns: ClassVar = {"sample": "", "label": "labels", "value": "values"}

    values: Float64[Tensor, " samples"]
    labels: Int64[Tensor, " samples"]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        if copy or dtype is not None:
            return np.array(self.values.numpy(), dtype=dtype)
        view = self.values.numpy().view()
        view.flags.writeable = False  # the result is frozen
        return view

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean over the samples."""
        return float(self.values.mean())

    @property
    def std(self) -> float:
        """Standard deviation over the samples (ddof 1); NaN for one sample."""
        return float(self.values.std()) if len(self.values) > 1 else float("nan")

    @property
    def median(self) -> float:
        """Median over the samples."""
        # torch's quantile takes up to 2^24 values; its median is the lower of the two middle ones.
        return float(self.values.quantile(0.5)) if len(self.values) < 2**24 else float(self.values.median())

    def summary(self) -> dict[str, float]:
        """Mean, its standard error over the samples, median, minimum and maximum."""
        return {
            "mean": self.mean,
            "standard_error": self.std / len(self.values) ** 0.5,
            "median": self.median,
            "min": float(self.values.min()),
            "max": float(self.values.max()),
        }


Kernel = Callable[[Network, Batch], Tensor]


def map_samples(
    model: nn.Module, data: LabelledData, kernel: Kernel, batch_size: int | None
) -> tuple[Tensor, Tensor, dict[str, object]]:
    """The values of a kernel on all samples, in order.

    Args:
        model: a classifier in eval mode; never changed.
        data: the samples.
        kernel: (network, batch), as `isolate` returns them -> (samples of the batch,).
        batch_size: samples per pass; None for the measured table.

    Returns:
        Values (samples,) in float64 on the CPU, the labels, and the subject for the settings.

    Raises:
        ValueError: if the network cannot be probed (mode, weights, output, determinism).
        ValueError: if a value is not finite; the message names the sample.
    """
    network, data = Network(model), check_classes(data)
    size = network.batch_size(batch_size, data)
    values = []
    for batch in data.batches(size):
        if batch.start == 0:
            check_batch(network, batch, data.classes)
        values.append(kernel(*isolate(network, batch)).double())
    result = torch.cat(values).cpu()  # The only wait for a device.
    if not bool(result.isfinite().all()):
        _report_not_finite(network, data.batches(size), result)
    subject = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    return result, data.labels, subject


def _report_not_finite(network: Network, batches: Iterable[Batch], values: Tensor) -> NoReturn:
    """Error that names the first sample whose logits or value are not finite.

    Raises:
        ValueError: always.
    """
    sample = int((~values.isfinite()).nonzero()[0])
    with torch.no_grad():
        for batch in batches:
            if batch.start + len(batch.labels) > sample:
                held, prepared = isolate(network, batch)
                check_logits(held(prepared.inputs), batch.start)
                break
    msg = (
        f"the value of sample {sample} must be finite, got {float(values[sample])} at finite logits. Probe the network "
        "in float64: network.double()"
    )
    raise ValueError(msg)


def isolate(network: Network, batch: Batch) -> tuple[Network, Batch]:
    """The batch on the network's device; of several inputs, the one floating tensor alone.

    Args:
        network: takes all inputs of the batch.
        batch: a batch of the data.

    Returns:
        Of several inputs with exactly one floating tensor: a network that holds the others (`Network.holding`), and the
        batch with that tensor. Otherwise the network and all inputs.
    """
    held, inputs = network.holding(network.prepare(batch.inputs))
    return held, Batch(inputs, batch.labels.to(network.device), batch.start)


def continuous(batch: Batch, probe: str) -> Tensor:
    """The one floating tensor of a batch from `isolate`, which a probe may move by small amounts.

    Raises:
        TypeError: for integer inputs, or several floating tensors.
    """
    inputs = batch.inputs
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        return inputs
    if isinstance(inputs, Tensor):
        what = f"a {inputs.dtype} tensor"
    else:
        what = ", ".join(f"{name} ({part.dtype})" for name, part in parts_of(inputs).items())
    if any(part.is_floating_point() for part in tensors(inputs)):
        fix = "wrap the network so that only the moving tensor is an input"
    else:
        fix = fix_of_integers(inputs)
    msg = f"{probe} moves the inputs by small amounts, which must be exactly one floating tensor, got {what}: {fix}"
    raise TypeError(msg)
