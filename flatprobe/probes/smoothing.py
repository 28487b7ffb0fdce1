"""The smoothed classifier: the most frequent class under Gaussian noise, with a certified radius."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData, check_classes
from flatprobe.data.inputs import Inputs
from flatprobe.network.checks import check_batch
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.trained_on import trained_on, warn_of_training_data
from flatprobe.probes.per_sample import continuous, isolate
from flatprobe.utils import rng
from flatprobe.utils.arguments import Number, Whole, at_least, positive
from flatprobe.utils.confidence import clopper_pearson_lower, wilson
from flatprobe.utils.results import Result, settings

ABSTAINED = -1
# Radii at which Cohen et al. (2019), Table 1, report the certified accuracy, as far as sigma = 0.25 reaches.
RADII = (0.0, 0.25, 0.5)


@dataclass(frozen=True, kw_only=True, repr=False)
class SmoothedCertificate(Result):
    """Certified l2 radii of the smoothed classifier, per sample, in the data's order.

    The radii certify the smoothed classifier. The class of the network itself may change within them. The selection
    draws choose a class, and independent estimation draws bound the probability of that class.

    Attributes:
        predicted: (samples,) class of the smoothed classifier, -1 where it abstains.
        radius: (samples,) certified l2 radius in the inputs' units; 0 where the smoothed classifier abstains.
        selected: (samples,) most frequent class among the selection draws, also where the smoothed classifier abstains.
        counts: (samples,) number of estimation draws with the selected class.
        labels: (samples,) labels of the data.
    """

    _columns: ClassVar = {
        "sample": "", "labels": "labels", "predicted": "predicted", "radius": "radius", "selected": "selected",
        "counts": "counts",
    }  # fmt: skip

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
        """Fraction of samples on which the smoothed classifier abstains."""
        return float((self.predicted == ABSTAINED).double().mean())

    @property
    def certified(self) -> Float64[Tensor, " samples"]:
        """(samples,) radius where the class is right; 0 where it is wrong or the smoothed classifier abstains."""
        return self.radius.where(self.predicted == self.labels, 0.0)

    def certified_accuracy(self, radii: Sequence[float] | Float64[Tensor, " radii"]) -> Float64[Tensor, " radii"]:
        """Fraction of samples of the right class with a certified radius of at least r, per r.

        Args:
            radii: l2 distances >= 0, in the inputs' units.

        Returns:
            (radii,) fractions. At r = 0 it is the accuracy, where an abstention is an error.

        Raises:
            ValueError: for a radius that is negative or NaN.
        """
        levels = torch.as_tensor(radii, dtype=torch.float64, device="cpu")
        if not bool((levels >= 0).all()):
            msg = f"radii must be distances >= 0, got {levels.tolist()}"
            raise ValueError(msg)
        # Ranks avoid a samples x radii table. A wrong answer has radius -1, below every r: r = 0 gives the accuracy.
        order = self.radius.where(self.predicted == self.labels, -1.0).sort().values
        return (len(self) - torch.searchsorted(order, levels)).double() / len(self)

    def band(
        self, radii: Sequence[float] | Float64[Tensor, " radii"], level: float = 0.95
    ) -> tuple[Float64[Tensor, " radii"], Float64[Tensor, " radii"]]:
        """Wilson's interval for the certified accuracy on fresh samples, pointwise.

        The interval is valid for samples of the same distribution that had no part in training the network.

        Args:
            radii: l2 distances, in the inputs' units.
            level: confidence; 0.95 by convention.

        Returns:
            Lower and upper limits, (radii,) each.

        Raises:
            ValueError: for a level outside (0, 1), or bad radii.

        Warns:
            UserWarning: where `fp.train` trained the network on these very samples.
        """
        warn_of_training_data(self.settings)
        return self.interval(radii, level)

    def interval(
        self, radii: Sequence[float] | Float64[Tensor, " radii"], level: float = 0.95
    ) -> tuple[Float64[Tensor, " radii"], Float64[Tensor, " radii"]]:
        """The `band` without its warning, for a caller that names the samples itself, as the report does."""
        return wilson(self.certified_accuracy(radii), len(self), level)

    @property
    def mean(self) -> float:
        """Mean certified radius, 0 where the network abstains or is wrong; `mean_radius` of the summary."""
        return float(self.certified.mean())

    def summary(self, radii: Sequence[float] = RADII) -> dict[str, float]:
        """Certified accuracy at sigma and at the radii, median and mean of `certified`, rate of abstention."""
        radii = [self.settings["arguments"]["sigma"], *radii]
        accuracy = zip(radii, self.certified_accuracy(radii).tolist(), strict=True)
        return {f"certified_accuracy({r:g})": value for r, value in accuracy} | {
            "median_radius": float(np.median(self.certified.numpy())),
            "mean_radius": self.mean,
            "abstained": self.abstained,
        }


@standalone
def smoothed_certificate(
    model: nn.Module,
    data: LabelledData,
    *,
    sigma: Number = 0.25,
    draws: Whole = 1000,
    alpha: float = 0.001,
    selection: Whole = 100,
    seed: int = 0,
    batch_size: int | None = None,
) -> SmoothedCertificate:
    """R = sigma Phi^-1(p_lower) around g(x) = argmax_c P(C(x + eta) = c), eta ~ N(0, sigma^2 I), C the network's class.

    The most frequent class of `selection` draws is selected. It occurs k times among `draws` further, independent ones,
    and p_lower is the one-sided Clopper-Pearson limit of its probability at alpha. Where p_lower > 1/2, g answers this
    class at every x' with ||x' - x||_2 < R; elsewhere g abstains. The certificate of a sample is right with probability
    at least 1 - alpha over the noise. **The radius belongs to the smoothed classifier g, not to the network.**

    The noise of a sample is a function of (seed, draw, position), with different keys for selection and estimation. It
    is the same for every network and batch size, and a longer run begins with the draws of a shorter one. The noisy
    inputs are not clipped.

    Cost: `draws + selection` forward passes over the data.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that takes normalized inputs in `fp.Normalised`,
            so that sigma and the radii are in pixel units.
        data: inputs and labels; the inputs must be one floating tensor, pixels in [0, 1].
        sigma: *standard deviation* of the noise in the inputs' units, where O20 writes the variance; 0.25 is the
            smallest level of Cohen et al.
        draws: estimation draws n. No radius exceeds sigma Phi^-1(alpha^(1/n)), which is 2.46 sigma at the default;
            Cohen et al. take 100,000, which gives 3.8 sigma.
        alpha: probability that a certificate is wrong; 0.001 is Cohen et al.'s.
        selection: draws that select the class; 100 is Cohen et al.'s.
        seed: of the noise.
        batch_size: noisy inputs per pass; None (default) reads the measured table.

    Returns:
        `SmoothedCertificate`.

    Raises:
        ValueError: for a sigma that is not positive, an alpha outside (0, 1), or too few draws to certify anything.
        ValueError: if the network or the data cannot be probed, or logits are not finite under the noise.
        TypeError: if the inputs are not one floating tensor.

    Source: Cohen, Rosenfeld and Kolter (2019), "Certified adversarial robustness via randomized smoothing", Theorem 1
    and CERTIFY; Oberman (2020), section 9.2 for the averaged network [O20].

    >>> model = nn.Linear(2, 2).eval()
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), model.bias.data.zero_()
    >>> data = LabelledData(torch.tensor([[0.3, 0.0], [0.0, 5.0]]), torch.tensor([0, 1]))
    >>> result = smoothed_certificate(model, data)
    >>> result.predicted.tolist(), bool(0.2 < result.radius[0] < 0.3)  # the true radius is 0.3; on a tie it abstains
    ([0, -1], True)
    """
    _check(sigma, draws, alpha, selection)
    network, data = Network(model), check_classes(data)
    size = network.batch_size(batch_size, data)
    selected, counts = [], []
    for batch in data.batches(size):
        if batch.start == 0:
            check_batch(network, batch, data.classes)
        votes = _votes(network, batch, sigma, selection, size, (seed, "smoothing selection"))
        winner = votes.argmax(1)
        votes = _votes(network, batch, sigma, draws, size, (seed, "smoothing estimation"))
        selected.append(winner)
        counts.append(votes.gather(1, winner[:, None]).squeeze(1))
    count, winners = torch.cat(counts).cpu(), torch.cat(selected).cpu()
    p_lower = clopper_pearson_lower(count, draws, alpha)
    answers = p_lower > 0.5
    subject = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    arguments = {"sigma": sigma, "draws": draws, "alpha": alpha, "selection": selection, "seed": seed}
    return SmoothedCertificate(
        predicted=winners.where(answers, ABSTAINED),
        radius=(sigma * torch.special.ndtri(p_lower)).where(answers, 0.0),
        selected=winners,
        counts=count,
        labels=data.labels,
        settings=settings("smoothed_certificate", subject, **arguments) | {"own_samples": trained_on(model, data)},
    )


def _votes(
    network: Network,
    batch: Batch,
    sigma: float,
    draws: int,
    size: int,
    key: tuple[rng.Key, ...],
    *,
    strict: bool = False,
) -> Int64[Tensor, "samples classes"]:
    """Votes per sample of the batch and class: the number of noise draws under which the network answers the class.

    Raises:
        ValueError: if a logit is not finite. One sum over all passes finds it, without a wait for the device in each;
            `strict` passes then name the sample and the draw.
    """
    inputs, given = continuous(isolate(network, batch)[1], "smoothed_certificate"), network.prepare(batch.inputs)
    votes = torch.zeros(len(inputs), network.classes, dtype=torch.int64, device=network.device)
    total = torch.zeros((), device=network.device)
    together = max(1, size // draws)
    with torch.no_grad():
        for row, first in itertools.product(range(0, len(inputs), together), range(0, draws, size)):
            x, last = inputs[row : row + together], min(first + size, draws)
            position = batch.start + row
            noise = rng.draws_normal(
                range(position, position + len(x)), first, last, x.shape[1:], *key, device=x.device
            ).to(x)
            noisy = torch.add(x[:, None], noise, alpha=sigma, out=noise).flatten(0, 1)
            logits = _holding(network, given, row, len(x), last - first)(noisy)
            if strict:
                _check_logits(logits, position, first, last - first)
            total += logits.sum(dtype=torch.float32)
            answer = logits.argmax(1).view(len(x), -1)
            votes[row : row + together].scatter_add_(1, answer, torch.ones_like(answer))
    if not strict and not bool(total.isfinite()):
        return _votes(network, batch, sigma, draws, size, key, strict=True)
    return votes


def _holding(network: Network, given: Inputs, row: int, samples: int, draws: int) -> Network:
    """The network for the draws of some samples, with the other inputs of these samples."""
    if isinstance(given, Tensor):
        return network
    owners = torch.arange(row, row + samples, device=network.device).repeat_interleave(draws)
    return network.repeating(given, owners)


def _check(sigma: float, draws: int, alpha: float, selection: int) -> None:
    positive(sigma=sigma)
    at_least(1, draws=draws, selection=selection)
    if not 0 < alpha < 1:
        msg = f"alpha must be a probability of error in (0, 1), got {alpha}"
        raise ValueError(msg)
    if not alpha ** (1 / draws) > 0.5:
        least = math.floor(-math.log2(alpha)) + 1
        msg = (
            f"draws must be at least {least} at alpha = {alpha}, got {draws}. With fewer, even a unanimous vote proves "
            "no majority"
        )
        raise ValueError(msg)


def _check_logits(logits: Tensor, start: int, first: int, draws: int) -> None:
    bad = ~logits.isfinite().all(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        msg = (
            f"the logits of sample {start + row // draws} must be finite under the noise of draw {first + row % draws}"
            f", got {logits[row].tolist()}. Look for an overflow, as in half precision, or take a smaller sigma"
        )
        raise ValueError(msg)
