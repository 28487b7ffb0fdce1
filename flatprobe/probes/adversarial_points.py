"""Adversarial points: the nearest input of another class that a minimum-norm attack found, per sample."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from flatprobe.attacks import MINIMUM_NORM, NORMS, Box
from flatprobe.data import LabelledData, check_classes
from flatprobe.functional.losses import functional_margin
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.probes.subjects import each_subject
from flatprobe.utils.arguments import Checked, Whole, at_least, one_of
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

Attack = Literal["ddn", "log_barrier", "deepfool", "fab", "ifgsm"]


@dataclass(frozen=True, kw_only=True, repr=False)
class AdversarialPoints(Result):
    """The closest adversarial point per sample. The table has one row per sample; `point` holds its flat values.

    Attributes:
        points: (samples, ...) in the network's dtype, on the CPU; the input itself where the sample is misclassified,
            or no point was found.
        distances: (samples,) length of point - input; 0 where the sample is misclassified, `inf` where no point was
            found.
        predicted: (samples,) class of the network at the point.
        labels: (samples,).
    """

    points: Float[Tensor, "samples ..."]
    distances: Float64[Tensor, " samples"]
    predicted: Int64[Tensor, " samples"]
    labels: Int64[Tensor, " samples"]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.distances)

    @property
    def reached(self) -> Tensor:
        """(samples,) True where a point was found, or the sample is misclassified."""
        return self.distances.isfinite()

    def summary(self) -> dict[str, float]:
        """Median of the distances, `inf` included; the numbers of misclassified samples and of those not reached."""
        middle = self.distances.sort().values[(len(self) - 1) // 2 : len(self) // 2 + 1]
        return {
            "median_distance": float(middle.mean()),
            "misclassified": float((self.distances == 0).sum()),
            "not_reached": float((~self.reached).sum()),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row per sample: sample, label, predicted, distance, point (its values in the order of the memory)."""
        import pandas as pd

        table = {"label": self.labels, "predicted": self.predicted, "distance": self.distances}
        frame = pd.DataFrame({name: values.numpy() for name, values in table.items()})
        frame.insert(0, "sample", range(len(frame)))
        flat = self.points.flatten(1)
        # numpy has no bfloat16, and float32 holds every number of the half precisions.
        return frame.assign(point=list((flat if flat.element_size() > 2 else flat.float()).numpy()))

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "AdversarialPoints":
        """The inverse of `to_frame`."""
        flat = torch.from_numpy(np.stack(frame["point"].to_list()))
        columns = {"labels": "label", "predicted": "predicted", "distances": "distance"}
        return cls(
            points=flat.to(getattr(torch, settings["dtype"])).reshape(len(frame), *settings["shape"]),
            **{field: torch.from_numpy(frame[name].to_numpy(copy=True)) for field, name in columns.items()},
            settings=settings,
        )


@standalone
def adversarial_points(
    model: nn.Module,
    data: LabelledData,
    *,
    attack: Checked[Attack] = "ddn",
    norm: Checked[Literal["l2", "linf"]] = "l2",
    box: Box = None,
    steps: Whole | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> AdversarialPoints:
    """x' near argmin { ||x' - x|| : argmax f(x') != y }, found by one attack, per sample.

    These are the points whose distances `geometric_margins` reports as `uppers[attack]`, for the same norm, box, steps
    and seed. Each is on the boundary by bisection, and the network was evaluated at exactly this rounded point.

    Cost per batch: that of the attack in `geometric_margins`, and 1 forward pass.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that takes normalized inputs in `fp.Normalised`,
            so that points and distances are in pixel units.
        data: inputs and labels; the inputs must be one floating tensor, and are rounded to the network's dtype.
        attack: one of `attacks.MINIMUM_NORM`; `"ddn"` (default) found the nearest points of a CNN in our benchmark.
        norm: `"l2"` (default, as in T3 and S17) or `"linf"`.
        box: least and largest value of an input; None (default) attacks in all of R^d. `(0, 1)` gives valid images.
        steps: steps of the attack; None (default) takes its own default.
        seed: of the random starts of `log_barrier`; the other attacks draw nothing.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `AdversarialPoints`, of all samples in the order of the data. A tie of the logits counts as misclassified.

    Raises:
        ValueError: for an unknown attack or norm, or steps below 1.
        ValueError: if the box does not contain the data; the message names the sample and its value.
        ValueError: if the network or the data cannot be probed.
        TypeError: if the inputs are not one floating tensor.

    Source: Oberman (2020), eq. 8.1 and Fig. 4 [O20].
    """
    one_of("attack", attack, MINIMUM_NORM)
    one_of("norm", norm, NORMS)
    at_least(1, steps=steps)
    network, data = Network(model), check_classes(data)
    size = network.batch_size(batch_size, data)
    points, distances, predicted = [], [], []
    for subject in each_subject(network, data, size, "adversarial_points", box):
        rows = (functional_margin(subject.logits, subject.labels) > 0).nonzero().flatten()
        found = subject.attack(attack, rows, norm, box, steps, seed)
        with torch.no_grad():
            predicted.append(subject.forward()(found.points).argmax(1).cpu())
        points.append(found.points.cpu())
        distances.append(found.distance.cpu())
    joined = torch.cat(points)
    described = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    arguments = {"attack": attack, "norm": norm, "box": box, "steps": steps, "seed": seed}
    stored = {"shape": list(joined.shape[1:]), "dtype": str(joined.dtype).removeprefix("torch.")}
    return AdversarialPoints(
        points=joined,
        distances=torch.cat(distances),
        predicted=torch.cat(predicted),
        labels=data.labels,
        settings=settings("adversarial_points", described, **arguments) | stored,
    )
