"""Gaussian robustness: the error under Gaussian noise in the inputs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from flatprobe.data import LabelledData, check_classes
from flatprobe.functional.losses import misclassified
from flatprobe.network.checks import check_batch, check_logits
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.trained_on import trained_on, warn_of_training_data
from flatprobe.probes.per_sample import continuous, isolate
from flatprobe.utils import rng
from flatprobe.utils.arguments import Checked, Numbers, Whole, at_least, numbers, one_of
from flatprobe.utils.confidence import clopper_pearson, wilson
from flatprobe.utils.results import Result, settings

# From no noise to noise as large as the pixel range, with the levels 0.05 and 0.2 of T3, Fig. 19.
GAMMAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class Robustness(Result):
    """E(gamma) for a grid of noise levels and several draws. The table has one row per noise level and draw.

    Attributes:
        gammas: (gammas,) standard deviations of the noise, in the inputs' units.
        error: (gammas, draws) fraction misclassified.
        samples: number of samples in each fraction.
    """

    _columns: ClassVar = {"gamma": "gammas", "draw": "", "error": "error"}
    _axes: ClassVar = {"gamma": 0, "draw": 1}

    gammas: Float64[Tensor, " gammas"]
    error: Float64[Tensor, "gammas draws"]
    samples: int

    @property
    def mean(self) -> Float64[Tensor, " gammas"]:
        """(gammas,) mean error over the draws."""
        return self.error.mean(1)

    def band(
        self, level: float = 0.95, method: Checked[Literal["wilson", "draws"]] = "wilson"
    ) -> tuple[Float64[Tensor, " gammas"], Float64[Tensor, " gammas"]]:
        """Pointwise confidence band for E(gamma).

        - `wilson`: for the error on *fresh samples*. Wilson's score interval for a binomial proportion of `samples`
          trials, at the mean over the draws, which reuse the samples and are no further trials. It is valid for samples
          of the same distribution that had no part in training the network.
        - `draws`: for the error of *these samples* under fresh noise. Clopper and Pearson's interval with a trial per
          sample and draw, whose coverage is at least the level for any number of draws. At gamma = 0 it is the error.

        Args:
            level: confidence; 0.95 by convention.
            method: `"wilson"` (default) or `"draws"`.

        Returns:
            Lower and upper limits, (gammas,) each.

        Raises:
            ValueError: for a level outside (0, 1), or an unknown method.

        Warns:
            UserWarning: with `wilson`, where `fp.train` trained the network on these very samples.
        """
        one_of("method", method, ("wilson", "draws"))
        p, level = self.mean, float(level)
        if method == "wilson":
            warn_of_training_data(self.settings)
            return self.interval(level)
        wrong = (self.error * self.samples).round().sum(1).long()
        lower, upper = clopper_pearson(wrong, self.samples * self.error.shape[1], level)
        drawn = self.gammas > 0
        return lower.where(drawn, p), upper.where(drawn, p)

    def interval(self, level: float = 0.95) -> tuple[Float64[Tensor, " gammas"], Float64[Tensor, " gammas"]]:
        """Wilson's `band` without its warning, for a caller that names the samples itself, as the report does."""
        return wilson(self.mean, self.samples, level)

    @property
    def shown(self) -> int:
        """Position of the headline's noise level: the one nearest to 0.2, the larger of T3's two (Fig. 19)."""
        return int((self.gammas - 0.2).abs().argmin())

    def summary(self) -> dict[str, float]:
        """Error: the value at the headline's noise level, the mean over the grid, and the value at each level."""
        errors = {f"error({gamma:g})": float(p) for gamma, p in zip(self.gammas, self.mean, strict=True)}
        first = list(errors)[self.shown]
        return {first: errors[first], "mean_error": float(self.error.mean())} | errors


@standalone
def gaussian_robustness(
    model: nn.Module,
    data: LabelledData,
    *,
    gammas: Numbers = GAMMAS,
    draws: Whole = 10,
    seed: int = 0,
    batch_size: int | None = None,
) -> Robustness:
    """E(gamma) = (1/n) sum_i 1[argmax f(x_i + gamma e_i) != y_i], e_i standard normal.

    The noise e_i of sample i is a function of (seed, draw, i). It is the same at every gamma, so the points of a curve
    are comparable, and for every network and batch size. The noisy inputs are not clipped.

    Cost: 1 forward pass per draw and noise level above 0, and 1 without noise. A linear first layer is evaluated once
    per draw, since its outputs are affine in gamma.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that takes normalized inputs in `fp.Normalised`,
            so that gamma is in pixel units.
        data: inputs and labels; the inputs must be one floating tensor, pixels in [0, 1].
        gammas: noise levels, standard deviations in the inputs' units. The default runs up to the pixel range and
            includes the levels 0.05 and 0.2 of T3, Fig. 19.
        draws: independent noise draws; 10 is our choice (T3 gives no number).
        seed: of the noise.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `Robustness`.

    Raises:
        ValueError: for an empty, negative or infinite gamma, or no draws.
        ValueError: if the network or the data cannot be probed, or logits are not finite under the noise.
        TypeError: if the inputs are not one floating tensor.

    Source: Poggio et al. (2017), eq. 47 and Fig. 20 [T3].
    """
    levels = numbers(gammas=gammas)
    at_least(1, draws=draws)
    if not levels or not all(0 <= gamma < float("inf") for gamma in levels):
        msg = f"gammas must be one or more finite standard deviations >= 0, got {levels}"
        raise ValueError(msg)
    network, data = Network(model), check_classes(data)
    size = network.batch_size(batch_size, data)
    wrong = torch.zeros(len(levels), draws, dtype=torch.int64, device=network.device)
    with torch.no_grad():
        for batch in data.batches(size):
            if batch.start == 0:
                check_batch(network, batch, data.classes)
            held, prepared = isolate(network, batch)
            inputs = continuous(prepared, "gaussian_robustness")
            total = torch.zeros((), dtype=torch.float64, device=network.device)
            for place, draw, logits in _passes(held, inputs, batch.start, levels, draws, seed):
                total += logits.sum(dtype=torch.float64)
                # Without noise, one pass serves all draws.
                own = slice(draw, draw + 1) if levels[place] > 0 else slice(None)
                wrong[place, own] += misclassified(logits, prepared.labels).sum()
            if not bool(total.isfinite()):  # The only wait for a device. The passes are repeated to name the sample.
                for _, _, logits in _passes(held, inputs, batch.start, levels, draws, seed):
                    check_logits(logits, batch.start)
    arguments = {"gammas": levels, "draws": draws, "seed": seed}
    subject = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    return Robustness(
        gammas=torch.tensor(levels, dtype=torch.float64, device="cpu"),
        error=wrong.double().cpu() / len(data),
        samples=len(data),
        settings=settings("gaussian_robustness", subject, **arguments)
        | {"samples": len(data), "own_samples": trained_on(model, data)},
    )


def _passes(
    network: Network, inputs: Tensor, start: int, levels: Sequence[float], draws: int, seed: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Place of the noise level, number of the draw, and logits of all samples, in the order of the draws."""
    at = _noisy(network, inputs)
    for draw in range(draws):
        noise = rng.sample_normal(
            start, start + len(inputs), inputs.shape[1:], seed, "noise", draw, device=inputs.device
        )
        places = [place for place, gamma in enumerate(levels) if gamma > 0 or draw == 0]
        noisy = at(noise.to(inputs), [levels[place] for place in places])
        yield from ((place, draw, logits) for place, logits in zip(places, noisy, strict=True))


def _noisy(network: Network, inputs: Tensor) -> Callable[[Tensor, Sequence[float]], Iterator[Tensor]]:
    """The function (e, gammas) -> logits at x + gamma e per gamma, for one noise draw e.

    If only flattening and normalization precede a first `nn.Linear`, the outputs of this layer are affine in gamma.
    They are computed once at x and once per draw, not per gamma.
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
