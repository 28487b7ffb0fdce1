"""Gaussian robustness: the training error when noise is added to the inputs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from flatprobe.data import LabelledData, check_data
from flatprobe.functional.losses import misclassified
from flatprobe.network.checks import check_batch, check_logits
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.trained_on import own_samples, warn_of_own
from flatprobe.probes.per_sample import continuous, placed
from flatprobe.utils import rng
from flatprobe.utils.arguments import at_least, numbers, one_of
from flatprobe.utils.confidence import clopper_pearson, wilson
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

# From no noise to noise as large as the pixel range, through T3 Fig. 19's 0.05 and 0.2.
GAMMAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class Robustness(Result):
    """E(gamma) for a grid of noise levels and several draws.

    Attributes:
        gammas: (gammas,) standard deviations of the noise, in the inputs' units.
        error: (gammas, draws) fraction misclassified.
        samples: number of samples that each fraction is over.
    """

    gammas: Float64[Tensor, " gammas"]
    error: Float64[Tensor, "gammas draws"]
    samples: int

    @property
    def mean(self) -> Float64[Tensor, " gammas"]:
        """The error averaged over the draws."""
        return self.error.mean(1)

    def band(
        self, level: float = 0.95, method: str = "wilson"
    ) -> tuple[Float64[Tensor, " gammas"], Float64[Tensor, " gammas"]]:
        """A confidence band for E(gamma), pointwise.

        `wilson` says how far the error on *fresh samples* may lie: Wilson's score interval for a binomial proportion of
        `samples` trials, at the mean over the draws (the draws reuse the samples, so they are not counted as further
        trials). It covers samples of the distribution that these were drawn from, for a network that was not trained on
        them; of a network's own training samples it says nothing about others. `draws` says how far the error of
        *these samples* may lie under fresh noise: Clopper and Pearson's interval with a trial for each sample and draw,
        which covers it at least as often as the level says, however few the draws and the errors, and is wide where
        most samples are sure. Without noise (gamma 0) nothing is drawn, and it is the error itself.

        Args:
            level: confidence; 0.95 by convention.
            method: which question.

        Returns:
            Lower and upper ends, (gammas,) each.

        Raises:
            ValueError: for a level outside (0, 1), or an unknown method.

        Warns:
            UserWarning: of `wilson` where `fp.train` trained the network on these very samples.
        """
        one_of("method", method, ("wilson", "draws"))
        p, level = self.mean, float(level)
        if method == "wilson":
            warn_of_own(self.settings)
            return self.interval(level)
        wrong = (self.error * self.samples).round().sum(1).long()
        lower, upper = clopper_pearson(wrong, self.samples * self.error.shape[1], level)
        drawn = self.gammas > 0
        return lower.where(drawn, p), upper.where(drawn, p)

    def interval(self, level: float = 0.95) -> tuple[Float64[Tensor, " gammas"], Float64[Tensor, " gammas"]]:
        """`band` by Wilson for whoever says himself which samples it is of, as the report does."""
        return wilson(self.mean, self.samples, level)

    def summary(self) -> dict[str, float]:
        """The mean error over the grid, and at each noise level."""
        return {"mean_error": float(self.error.mean())} | {
            f"error({gamma:g})": float(p) for gamma, p in zip(self.gammas, self.mean, strict=True)
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a noise level and draw."""
        import pandas as pd

        gammas, draws = self.error.shape
        columns = {
            "gamma": np.repeat(self.gammas.numpy(), draws),
            "draw": np.tile(np.arange(draws), gammas),
            "error": self.error.flatten().numpy(),
        }
        return pd.DataFrame(columns)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Robustness":
        """The inverse of `to_frame`."""
        draws = int(frame["draw"].max()) + 1
        error = torch.from_numpy(frame["error"].to_numpy(copy=True)).view(-1, draws)
        gammas = torch.from_numpy(frame["gamma"].to_numpy(copy=True)[::draws].copy())
        return cls(gammas=gammas, error=error, samples=settings["samples"], settings=settings)


@standalone
def gaussian_robustness(
    model: nn.Module,
    data: LabelledData,
    *,
    gammas: float | Sequence[float] | Any = GAMMAS,
    draws: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
) -> Robustness:
    """E(gamma) = (1/n) sum_i 1[argmax f(x_i + gamma e_i) != y_i], e_i standard normal (T3 eq. 47, Fig. 20).

    One forward pass a draw and noise level above 0, and one without noise (less where the first layer is linear: its
    outputs are affine in gamma); the noisy inputs are not clipped. The noise e_i of sample i in a draw is a function of
    (seed, draw, i): the same at every gamma (so a curve's points are comparable), for every network and for every batch
    size.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that wants normalised inputs in `fp.Normalised`,
            so that gamma is in pixel units.
        data: inputs and labels; the inputs one floating tensor, pixels in [0, 1].
        gammas: noise levels, standard deviations in the inputs' units; the default runs through T3 Fig. 19's 0.05 and
            0.2 up to the pixel range.
        draws: independent noise draws; 10 is our choice (T3 does not say).
        seed: which family of draws.
        batch_size: samples a pass; None (default) reads the measured table.

    Returns:
        `Robustness`.

    Raises:
        ValueError: for no, negative or not finite gammas, no draws, a network or data that cannot be probed, or logits
            that are not finite under the noise.
        TypeError: if the inputs are not one floating tensor.
    """
    levels = numbers(gammas=gammas)
    at_least(1, draws=draws)
    if not levels or not all(0 <= gamma < float("inf") for gamma in levels):
        msg = f"gammas is {levels}; expected at least one finite standard deviation >= 0"
        raise ValueError(msg)
    network, data = Network(model), check_data(data)
    size = network.batch_size(batch_size)
    wrong = torch.zeros(len(levels), draws, dtype=torch.int64, device=network.device)
    with torch.no_grad():
        for batch in data.batches(size):
            if batch.start == 0:
                check_batch(network, batch, data.classes)
            held, prepared = placed(network, batch)
            inputs = continuous(prepared, "gaussian_robustness")
            at = _noisy(held, inputs)
            for draw in range(draws):
                stop = batch.start + len(batch.labels)
                noise = rng.sample_normal(batch.start, stop, inputs.shape[1:], seed, "noise", draw)
                places = [place for place, gamma in enumerate(levels) if gamma > 0 or draw == 0]
                noisy = at(torch.empty_like(inputs).copy_(noise), [levels[place] for place in places])
                for place, logits in zip(places, noisy, strict=True):
                    check_logits(logits, batch.start)
                    # Without noise all draws are the same pass.
                    own = slice(draw, draw + 1) if levels[place] > 0 else slice(None)
                    wrong[place, own] += misclassified(logits, prepared.labels).sum()
    arguments = {"gammas": levels, "draws": draws, "seed": seed}
    subject = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    return Robustness(
        gammas=torch.tensor(levels, dtype=torch.float64, device="cpu"),
        error=wrong.double().cpu() / len(data),
        samples=len(data),
        settings=settings("gaussian_robustness", subject, **arguments)
        | {"samples": len(data), "own_samples": own_samples(model, data)},
    )


def _noisy(network: Network, inputs: Tensor) -> Callable[[Tensor, Sequence[float]], Iterator[Tensor]]:
    """Evaluator of (e, gammas) -> the logits at x + gamma e for each gamma.

    Where the network begins with an `nn.Linear` (behind flattening and normalisation at most), its outputs are affine
    in gamma: they are computed once at x and once a draw, not once a gamma.
    """
    split = network.first_linear(in_inputs=True)
    if split is None:
        return lambda noise, gammas: (network(torch.add(inputs, noise, alpha=gamma)) for gamma in gammas)
    head, tail, _ = split
    start = head(inputs, network.weights)

    def logits(noise: Tensor, gammas: Sequence[float]) -> Iterator[Tensor]:
        change = head(inputs + noise, network.weights) - start
        return (tail(torch.add(start, change, alpha=gamma), network.weights) for gamma in gammas)

    return logits
