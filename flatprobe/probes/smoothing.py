"""The smoothed classifier: what a network answers most often under Gaussian noise, with a certified radius."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData, check_data
from flatprobe.network.checks import check_batch
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.trained_on import own_samples, warn_of_own
from flatprobe.probes.per_sample import continuous, placed
from flatprobe.utils import rng
from flatprobe.utils.arguments import at_least, positive
from flatprobe.utils.confidence import clopper_pearson_lower, wilson
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

ABSTAINED = -1
# Where Cohen et al. 2019 tabulate the certified accuracy (their Table 1, up to what sigma = 0.25 reaches).
RADII = (0.0, 0.25, 0.5)


@dataclass(frozen=True, kw_only=True, repr=False)
class SmoothedCertificate(Result):
    """Certified l2 radii of the smoothed classifier, per sample, in the data's order.

    They say nothing of the network itself: it is the vote under noise, not the network, whose answer cannot change
    within the radius.

    Attributes:
        predicted: (samples,) the class that the smoothed classifier answers, -1 where it abstains.
        radius: (samples,) certified l2 radius around that answer, in the inputs' units; 0 where it abstains.
        selected: (samples,) the class most frequent among the selection draws, also where it then abstains.
        counts: (samples,) how many of the estimation draws gave the selected class.
        labels: (samples,) the labels that the data give.
    """

    predicted: Int64[Tensor, " samples"]
    radius: Float64[Tensor, " samples"]
    selected: Int64[Tensor, " samples"]
    counts: Int64[Tensor, " samples"]
    labels: Int64[Tensor, " samples"]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.radius)

    @property
    def abstained(self) -> float:
        """The fraction of samples on which the smoothed classifier abstains."""
        return float((self.predicted == ABSTAINED).double().mean())

    @property
    def certified(self) -> Float64[Tensor, " samples"]:
        """The radius where the answer is right, 0 where it is wrong or withheld."""
        return self.radius.where(self.predicted == self.labels, 0.0)

    def certified_accuracy(self, radii: Sequence[float] | Float64[Tensor, " radii"]) -> Float64[Tensor, " radii"]:
        """The fraction of samples answered rightly with a certified radius of at least r, for each r.

        Args:
            radii: l2 distances >= 0, in the inputs' units.

        Returns:
            (radii,) fractions; at 0 it is the accuracy, an abstention counting as an error.

        Raises:
            ValueError: for a radius that is negative or not a number.
        """
        levels = torch.as_tensor(radii, dtype=torch.float64, device="cpu")
        if not bool((levels >= 0).all()):
            msg = f"radii is {levels.tolist()}; expected distances >= 0"
            raise ValueError(msg)
        # By rank, not by a samples x radii table. -1 is below every radius: at r = 0 a right answer is enough.
        order = self.radius.where(self.predicted == self.labels, -1.0).sort().values
        return (len(self) - torch.searchsorted(order, levels)).double() / len(self)

    def band(
        self, radii: Sequence[float] | Float64[Tensor, " radii"], level: float = 0.95
    ) -> tuple[Float64[Tensor, " radii"], Float64[Tensor, " radii"]]:
        """Wilson's interval for the certified accuracy on fresh samples, pointwise.

        It covers samples of the distribution that these were drawn from, for a network that was not trained on them;
        of a network's own training samples it says nothing about others.

        Args:
            radii: l2 distances, in the inputs' units.
            level: confidence; 0.95 by convention.

        Returns:
            Lower and upper ends, (radii,) each.

        Raises:
            ValueError: for a level outside (0, 1), or bad radii.

        Warns:
            UserWarning: where `fp.train` trained the network on these very samples.
        """
        warn_of_own(self.settings)
        return self.interval(radii, level)

    def interval(
        self, radii: Sequence[float] | Float64[Tensor, " radii"], level: float = 0.95
    ) -> tuple[Float64[Tensor, " radii"], Float64[Tensor, " radii"]]:
        """`band` for whoever says himself which samples it is of, as the report does."""
        return wilson(self.certified_accuracy(radii), len(self), level)

    def summary(self, radii: Sequence[float] = RADII) -> dict[str, float]:
        """Median and mean of `certified`, the abstention rate, the certified accuracy at chosen radii."""
        figures = {
            "median_radius": float(np.median(self.certified.numpy())),
            "mean_radius": float(self.certified.mean()),
            "abstained": self.abstained,
        }
        accuracy = self.certified_accuracy(radii).tolist()
        return figures | {f"certified_accuracy({r:g})": value for r, value in zip(radii, accuracy, strict=True)}

    def to_frame(self) -> "pandas.DataFrame":
        """One row a sample."""
        import pandas as pd

        columns = {name: getattr(self, name).numpy() for name in _COLUMNS}
        return pd.DataFrame({"sample": range(len(self)), **columns})

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "SmoothedCertificate":
        """The inverse of `to_frame`."""
        columns: dict[str, Any] = {name: torch.from_numpy(frame[name].to_numpy(copy=True)) for name in _COLUMNS}
        return cls(**columns, settings=settings)


_COLUMNS = ("labels", "predicted", "radius", "selected", "counts")


@standalone
def smoothed_certificate(
    model: nn.Module,
    data: LabelledData,
    *,
    sigma: float = 0.25,
    draws: int = 1000,
    alpha: float = 0.001,
    selection: int = 100,
    seed: int = 0,
    batch_size: int | None = None,
) -> SmoothedCertificate:
    """R = sigma Phi^-1(p_lower) around g(x) = argmax_c P(C(x + eta) = c), eta ~ N(0, sigma^2 I), C the network's class.

    The most frequent class of `selection` draws is selected; among `draws` further, independent ones it occurs k times,
    and p_lower is the one-sided Clopper-Pearson limit of its probability at alpha. Where p_lower > 1/2, g answers that
    class at every x' with ||x' - x||_2 < R; elsewhere it abstains. For each sample, with probability at least 1 - alpha
    over the noise, the certificate is right. **The radius belongs to the smoothed classifier g, not to the network.**

    `draws + selection` forward passes over the data, several draws of several samples to a pass. The noise is not
    clipped, and that of a sample is a function of (seed, draw, position), in different families for selection and
    estimation: the same for every network and batch size, and the first draws of a longer run are those of a shorter.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that wants normalised inputs in `fp.Normalised`,
            so that sigma and the radii are in pixel units.
        data: inputs and labels; the inputs one floating tensor, pixels in [0, 1].
        sigma: *standard deviation* of the noise (O20 writes its variance), in the inputs' units; 0.25 is the smallest
            level of Cohen et al.
        draws: estimation draws n; no radius can exceed sigma Phi^-1(alpha^(1/n)), which is 2.46 sigma at the default
            (Cohen et al. take 100,000: 3.8 sigma).
        alpha: how often a certificate may be wrong; 0.001 is Cohen et al.'s.
        selection: draws that select the class; 100 is Cohen et al.'s.
        seed: which family of draws.
        batch_size: noisy inputs a pass; None (default) reads the measured table.

    Returns:
        `SmoothedCertificate`.

    Raises:
        ValueError: for a sigma that is not positive, an alpha outside (0, 1), no draws or too few to certify anything,
            a network or data that cannot be probed, or logits that are not finite under the noise.
        TypeError: if the inputs are not one floating tensor.

    Source: O20 section 9.2 (the averaged network); Cohen, Rosenfeld, Kolter 2019, "Certified adversarial robustness via
    randomized smoothing", Theorem 1, CERTIFY.

    >>> model = nn.Linear(2, 2).eval()
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), model.bias.data.zero_()
    >>> data = LabelledData(torch.tensor([[0.3, 0.0], [0.0, 5.0]]), torch.tensor([0, 1]))
    >>> result = smoothed_certificate(model, data)
    >>> result.predicted.tolist(), bool(0.2 < result.radius[0] < 0.3)  # the true radius is 0.3; on a tie it abstains
    ([0, -1], True)
    """
    _check(sigma, draws, alpha, selection)
    network, data = Network(model), check_data(data)
    size = network.batch_size(batch_size)
    selected, counts = [], []
    # A block of draws is made whole, so a pass takes as many samples as fill it with whole blocks.
    for batch in data.batches(max(1, size // rng.BLOCK)):
        if batch.start == 0:
            check_batch(network, batch, data.classes)
        votes = _votes(network, batch, sigma, selection, size, (seed, "smoothing selection"))
        winner = votes.argmax(1)
        votes = _votes(network, batch, sigma, draws, size, (seed, "smoothing estimation"))
        selected.append(winner.cpu())
        counts.append(votes.gather(1, winner[:, None]).squeeze(1).cpu())
    count = torch.cat(counts)
    p_lower = clopper_pearson_lower(count, draws, alpha)
    answers = p_lower > 0.5
    subject = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    arguments = {"sigma": sigma, "draws": draws, "alpha": alpha, "selection": selection, "seed": seed}
    return SmoothedCertificate(
        predicted=torch.cat(selected).where(answers, ABSTAINED),
        radius=(sigma * torch.special.ndtri(p_lower)).where(answers, 0.0),
        selected=torch.cat(selected),
        counts=count,
        labels=data.labels,
        settings=settings("smoothed_certificate", subject, **arguments) | {"own_samples": own_samples(model, data)},
    )


def _votes(
    network: Network, batch: Batch, sigma: float, draws: int, size: int, key: tuple[rng.Key, ...]
) -> Int64[Tensor, "samples classes"]:
    """How often each class is the network's answer under that many draws of noise, for each sample of the batch."""
    inputs, given = continuous(placed(network, batch)[1], "smoothed_certificate"), network.prepare(batch.inputs)
    votes = torch.zeros(len(inputs), network.classes, dtype=torch.int64, device=network.device)
    with torch.no_grad():
        for first in range(0, draws, rng.BLOCK):
            last = min(first + rng.BLOCK, draws)
            noisy = inputs.new_empty((len(inputs), last - first, *inputs.shape[1:]))
            for row, x in enumerate(inputs):  # a sample's block stays in the cache from its draw to its sum
                noise = rng.sample_normal(first, last, x.shape, *key, batch.start + row)
                torch.add(x, noise.to(inputs), alpha=sigma, out=noisy[row])
            noisy = noisy.flatten(0, 1)
            owners = torch.arange(len(noisy), device="cpu") // (last - first)
            parts = [slice(row, row + size) for row in range(0, len(noisy), size)]
            logits = torch.cat([network.repeating(given, owners[part])(noisy[part]) for part in parts])
            _check_logits(logits, batch.start, first, last - first)
            answer = logits.argmax(1).view(len(inputs), -1)
            votes.scatter_add_(1, answer, torch.ones_like(answer))
    return votes


def _check(sigma: float, draws: int, alpha: float, selection: int) -> None:
    positive(sigma=sigma)
    at_least(1, draws=draws, selection=selection)
    if not 0 < alpha < 1:
        msg = f"alpha is {alpha}; expected a probability of error in (0, 1)"
        raise ValueError(msg)
    if not alpha ** (1 / draws) > 0.5:
        least = math.floor(-math.log2(alpha)) + 1
        msg = (
            f"draws is {draws}; at alpha = {alpha} expected at least {least}: with fewer, even a unanimous vote proves "
            "no majority and every sample abstains"
        )
        raise ValueError(msg)


def _check_logits(logits: Tensor, start: int, first: int, draws: int) -> None:
    bad = ~logits.isfinite().all(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        msg = (
            f"the logits of sample {start + row // draws} are not finite under the noise of draw {first + row % draws} "
            f"({logits[row].tolist()}); expected finite logits: look for an overflow (half precision?) or a smaller "
            "sigma"
        )
        raise ValueError(msg)
