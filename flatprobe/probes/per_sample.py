"""What the input-space probes share: one kernel mapped over the data in order, one value per sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData, check_data, parts_of
from flatprobe.data.inputs import Inputs, fix_of_integers, map_tensors, tensors
from flatprobe.network.checks import check_batch, check_logits
from flatprobe.network.differentiable import check_differentiable
from flatprobe.network.network import Network
from flatprobe.utils.results import Result

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, repr=False)
class PerSample(Result):
    """One value per sample, in the data's order. `numpy.asarray(result)` is the values.

    Attributes:
        values: (samples,) float64, on the CPU.
        labels: (samples,) the labels that the data give.
    """

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

    def summary(self) -> dict[str, float]:
        """Mean, standard error of the mean over samples, median, least and largest."""
        values = self.values
        return {
            "mean": float(values.mean()),
            "standard_error": float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan"),
            "median": float(values.quantile(0.5)) if len(values) < 2**24 else float(values.median()),
            "min": float(values.min()),
            "max": float(values.max()),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a sample: sample, label, value."""
        import pandas as pd

        columns = {"sample": range(len(self)), "label": self.labels.numpy(), "value": self.values.numpy()}
        return pd.DataFrame(columns)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "PerSample":
        """The inverse of `to_frame`."""
        return cls(
            values=torch.from_numpy(frame["value"].to_numpy(copy=True)),
            labels=torch.from_numpy(frame["label"].to_numpy(copy=True)),
            settings=settings,
        )


Kernel = Callable[[Network, Batch], Tensor]


def map_samples(
    model: nn.Module, data: LabelledData, kernel: Kernel, batch_size: int | None
) -> tuple[Tensor, Tensor, dict[str, object]]:
    """The kernel's value for every sample, in order.

    Args:
        model: a classifier in eval mode; it is never changed.
        data: the samples.
        kernel: (network, batch), as `placed` returns them -> (samples of the batch,).
        batch_size: samples at a time; None for the measured table.

    Returns:
        Values (samples,) float64 on the CPU, labels, and what a record says of the subject.

    Raises:
        ValueError: for a network that is refused (mode, weights, output, determinism), or a value that is not finite,
            naming the sample.
    """
    network, data = Network(model), check_data(data)
    size = network.batch_size(batch_size)
    values = []
    for batch in data.batches(size):
        if batch.start == 0:
            check_batch(network, batch, data.classes)
        held, prepared = placed(network, batch)
        result = kernel(held, prepared).double().cpu()
        if not bool(result.isfinite().all()):
            with torch.no_grad():
                check_logits(held(prepared.inputs), batch.start)
            row = int((~result.isfinite()).nonzero()[0])
            msg = (
                f"the value of sample {batch.start + row} is {float(result[row])} though its logits are finite; probe "
                "in float64"
            )
            raise ValueError(msg)
        values.append(result)
    subject = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    return torch.cat(values), data.labels, subject


def placed(network: Network, batch: Batch) -> tuple[Network, Batch]:
    """The batch on the network's device, as the one floating tensor where it has several inputs.

    Args:
        network: takes all inputs of the batch.
        batch: as the data give it.

    Returns:
        What is measured: a network that holds the batch's other inputs (`Network.holding`), and the batch with the
        floating tensor alone. For a single tensor, or where not exactly one is floating, the network and all inputs.
    """
    held, inputs = network.holding(network.prepare(batch.inputs))
    return held, Batch(inputs, batch.labels.to(network.device), batch.start)


def continuous(batch: Batch, probe: str) -> Tensor:
    """The inputs of a batch that `placed` returned, if they can be moved by small amounts: one floating tensor.

    Raises:
        TypeError: for integer inputs, or several floating ones.
    """
    inputs = batch.inputs
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        return inputs
    if isinstance(inputs, Tensor):
        what = f"a {inputs.dtype} tensor"
    else:
        what = ", ".join(f"{name} ({part.dtype})" for name, part in parts_of(inputs).items())
    if any(part.is_floating_point() for part in tensors(inputs)):
        cure = "wrap the network so that only what is to move is an input"
    else:
        cure = fix_of_integers(inputs)
    msg = (
        f"{probe} moves the inputs by small amounts, and they are {what}; expected exactly one floating tensor: {cure}"
    )
    raise TypeError(msg)


@dataclass(frozen=True)
class Subject:
    """A batch that an attack works on.

    Attributes:
        network: the classifier.
        given: the batch's inputs, as the network takes them, all of them.
        inputs: the one floating tensor among them, which the attack moves.
        labels: (samples,).
        start: position of the first sample in the data.
    """

    network: Network
    given: Inputs
    inputs: Tensor
    labels: Tensor
    start: int

    def forward(self, rows: Tensor | None = None) -> Network:
        """Points in place of these rows' inputs (None: all) -> logits."""
        return self.network.holding(self.given if rows is None else map_tensors(lambda part: part[rows], self.given))[0]


def attacked(
    network: Network, data: LabelledData, batch_size: int, probe: str, box: tuple[float, float] | None
) -> Iterator[Subject]:
    """The batches that an attack works on, checked.

    Args:
        network: the classifier; its logits must be differentiable in the inputs.
        data: the samples.
        batch_size: samples at a time.
        probe: who asks, for the messages.
        box: what the inputs must lie in, or None.

    Yields:
        One `Subject` a batch.

    Raises:
        TypeError: if the inputs are not one floating tensor.
        ValueError: for a network or data that cannot be probed; for a box that is none or does not contain the data.
    """
    if box is not None and not -float("inf") < box[0] < box[1] < float("inf"):
        msg = f"box is {box}; expected two finite numbers, the least first, or None for all of R^d"
        raise ValueError(msg)
    for batch in data.batches(batch_size):
        if batch.start == 0:
            check_batch(network, batch, data.classes)
        batch = Batch(map_tensors(_plain, batch.inputs), _plain(batch.labels), batch.start)
        held, prepared = placed(network, batch)
        inputs = continuous(prepared, probe)
        if batch.start == 0:
            check_differentiable(held, inputs)
        _check_box(inputs, batch.start, box)
        with torch.no_grad():
            check_logits(held(inputs), batch.start)
        yield Subject(network, network.prepare(batch.inputs), inputs, prepared.labels, batch.start)


def _plain(value: Tensor) -> Tensor:
    """The tensor, or a copy of one made in inference mode, which no backward pass could keep."""
    return value.clone() if value.is_inference() else value


def _check_box(inputs: Tensor, start: int, box: tuple[float, float] | None) -> None:
    if box is None:
        return
    outside = (inputs < box[0]) | (inputs > box[1])
    if bool(outside.any()):
        row = int(outside.flatten(1).any(1).nonzero()[0])
        value = float(inputs[row][outside[row]][0])
        msg = (
            f"sample {start + row} has the value {value:g}, outside the box [{box[0]:g}, {box[1]:g}]; expected a box "
            "that contains the data: in the inputs' own units, or None for all of R^d"
        )
        raise ValueError(msg)
