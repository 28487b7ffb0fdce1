"""Gradient noise: what a minibatch's gradient differs by from the gradient over all of the data, at fixed weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, select
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.utils import rng
from flatprobe.utils.arguments import Selection, Whole, at_least
from flatprobe.utils.results import Result, settings


@dataclass(frozen=True, kw_only=True, repr=False)
class GradientNoise(Result):
    """xi = minibatch gradient - full gradient: some of its components whole, and its squared length, a row a draw.

    Attributes:
        noise: (draws, components) sampled components of xi, in units of the loss per unit of weight.
        components: their names, such as "0.weight[37]" (the flat index).
        gradient: (components,) the full gradient there.
        squared_lengths: (draws,) ||xi||^2 over all selected parameters.
        gradient_norm: ||grad I|| over all selected parameters.
        inflation: trace of the covariance of one sample's gradient over E ||xi||^2: B with replacement, B (n - 1) /
            (n - B) without.
        live: how many components have a full gradient other than 0, of which the sampled ones are taken.
    """

    _columns: ClassVar = {
        "draw": "", "component": "components", "noise": "noise", "gradient": "gradient",
        "squared_length": "squared_lengths",
    }  # fmt: skip
    _axes: ClassVar = {"draw": 0, "component": 1, "gradient": 1, "squared_length": 0}

    noise: Float64[Tensor, "draws components"]
    components: tuple[str, ...]
    gradient: Float64[Tensor, " components"]
    squared_lengths: Float64[Tensor, " draws"]
    gradient_norm: float
    inflation: float
    live: int

    @property
    def trace_covariance(self) -> float:
        """tr Sigma, Sigma = (1/n) sum_i (g_i - grad I)(g_i - grad I)^T over the gradients of single samples' losses."""
        return self.inflation * float(self.squared_lengths.mean())

    @property
    def noise_scale(self) -> float:
        """tr Sigma / ||grad I||^2, in samples: the minibatch size whose noise is as long as the gradient."""
        return float(self.trace_covariance / self.gradient_norm**2)

    @property
    def noise_scale_error(self) -> float:
        """The standard error of the noise scale over the draws."""
        spread = float(self.squared_lengths.std()) / len(self.squared_lengths) ** 0.5
        return float(self.inflation * spread / self.gradient_norm**2)

    @property
    def kurtosis(self) -> Float64[Tensor, " components"]:
        """Excess kurtosis of each component over the draws: 0 for a normal law; its standard error is sqrt(24/draws).

        (D + 2) / D m4 / m2^2 - 3 with moments about 0, which is the noise's mean: without bias for normal noise.
        """
        return _kurtosis(self.noise.square().sum(0), self.noise.pow(4).sum(0), len(self.noise))

    @property
    def mean_kurtosis(self) -> float:
        """The mean of `kurtosis` over the components."""
        return float(self.kurtosis.mean())

    @property
    def mean_kurtosis_error(self) -> float:
        """Its standard error by the jackknife over draws, which allows for components that depend on each other."""
        squares, fourths, draws = self.noise.square(), self.noise.pow(4), len(self.noise)
        without = _kurtosis(squares.sum(0) - squares, fourths.sum(0) - fourths, draws - 1).mean(1)
        return float(((draws - 1) / draws * (without - without.mean()).square().sum()).sqrt())

    def summary(self) -> dict[str, float]:
        """The noise scale and the mean excess kurtosis with their standard errors, tr Sigma and ||grad I||."""
        return {
            "noise_scale": self.noise_scale,
            "noise_scale_error": self.noise_scale_error,
            "mean_kurtosis": self.mean_kurtosis,
            "mean_kurtosis_error": self.mean_kurtosis_error,
            "trace_covariance": self.trace_covariance,
            "gradient_norm": self.gradient_norm,
        }


@takes_risk
def gradient_noise(
    risk: RiskFunction,
    *,
    batch_size: Whole = 128,
    draws: Whole = 200,
    replacement: bool = False,
    components: Whole = 64,
    parameters: Selection = None,
    seed: int = 0,
) -> GradientNoise:
    """xi = (1/B) sum_{i in z} grad l_i - grad I over random minibatches z of B samples, w fixed (T3 eqs 7-8, Fig. 5).

    One gradient over the data, and one of B samples a draw, at the cost of plain training steps; per-sample gradients
    are never formed. T3 argues that the components of xi are nearly normal; `kurtosis` says how nearly. The *noise
    scale* is tr Sigma / ||grad I||^2 with Sigma the covariance of the gradients of single samples' losses (McCandlish
    et al. 2018, "simple noise scale", with the data set in place of the distribution), estimated without bias from E
    ||xi||^2 = tr Sigma / B * (n - B) / (n - 1), the last factor with `replacement=False` only. Where the network
    interpolates, ||grad I|| is nearly 0 and the scale large.

    Memory holds all of the full gradient and one minibatch's, and `components` numbers a draw.

    Args:
        risk: an `EmpiricalRisk`; BatchNorm uses its running statistics, so a sample's gradient is its own.
        batch_size: B; 128 is `fp.train`'s default (T3 names no size).
        draws: independent minibatches; 200 (our choice) leaves a standard error of 0.35 in a component's kurtosis.
        replacement: whether samples are drawn with replacement; False is T3's z subset of [n], as in an epoch of SGD.
        components: how many components are kept, drawn at random from those whose full gradient is not 0 (a dead unit's
            or an always black pixel's weights have no noise at all); all if there are fewer.
        parameters: None for all, `"last"`, or names or patterns.
        seed: minibatch k is a function of (seed, k), the components of the seed.

    Returns:
        `GradientNoise`.

    Raises:
        ValueError: for arguments out of range, a minibatch as large as the data (without replacement it has no noise),
            a selection that matches nothing, a gradient that is 0 throughout, or one that is not finite.
        TypeError: for a risk without data.
    """
    if not isinstance(risk, EmpiricalRisk):
        msg = (
            f"the risk is a {type(risk).__name__}; expected an fp.EmpiricalRisk, whose data the minibatches are drawn "
            "from"
        )
        raise TypeError(msg)
    at_least(1, batch_size=batch_size, components=components)
    at_least(2, draws=draws)
    count = len(risk.data)
    if count < 2:
        msg = "there is a single sample; expected at least 2: its gradient is the full one, without noise"
        raise ValueError(msg)
    if not replacement and batch_size >= count:
        msg = (
            f"batch_size is {batch_size} and there are {count} samples; expected fewer than those, or "
            "replacement=True: the whole data have no noise"
        )
        raise ValueError(msg)
    names = select(risk.center, parameters)
    check_acts(risk, names)
    full = _flat(risk.gradient(names=names))
    kept = _kept(full, components, seed)
    noise, squared = [], []
    for positions in _minibatches(count, batch_size, draws, replacement, seed):
        xi = _flat(risk.gradient(names=names, positions=positions)) - full
        noise.append(xi[kept])
        squared.append(float(xi.square().sum()))
    derived: dict[str, Any] = {
        "gradient_norm": float(full.norm()),
        "inflation": float(batch_size if replacement else batch_size * (count - 1) / (count - batch_size)),
        "live": int((full != 0).sum()),
    }
    arguments = {
        "batch_size": batch_size, "draws": draws, "replacement": replacement, "components": components,
        "parameters": as_given(parameters), "seed": seed,
    }  # fmt: skip
    return GradientNoise(
        noise=torch.stack(noise),
        components=_labels(risk.center, names, kept),
        gradient=full[kept],
        squared_lengths=torch.tensor(squared, dtype=torch.float64, device="cpu"),
        settings=settings("gradient_noise", risk.describe(), **arguments) | derived | {"selected": list(names)},
        **derived,
    )


def _minibatches(count: int, size: int, draws: int, replacement: bool, seed: int) -> Iterator[Int64[Tensor, " size"]]:
    for draw in range(draws):
        key = (seed, "minibatch", draw)
        yield (
            torch.randint(count, (size,), generator=rng.generator(*key), device="cpu")
            if replacement
            else rng.permutation(count, *key)[:size]
        )


def _kept(full: Tensor, components: int, seed: int) -> Int64[Tensor, " components"]:
    """Places of the components to keep, in order.

    Raises:
        ValueError: for a gradient that is not finite, or 0 throughout.
    """
    live = full.nonzero().flatten()
    if not bool(full.isfinite().all()) or len(live) == 0:
        found = "not finite" if len(live) else "0 in every selected parameter"
        msg = f"the full gradient is {found}; expected a finite one other than 0: probe in float64, or select others"
        raise ValueError(msg)
    return live[rng.permutation(len(live), seed, "components")[:components].sort().values]


def _labels(weights: Weights, names: Sequence[str], places: Tensor) -> tuple[str, ...]:
    ends = torch.tensor([weights[name].numel() for name in names], device="cpu").cumsum(0)
    owners = torch.searchsorted(ends, places, right=True).tolist()
    starts = [0, *ends.tolist()]
    return tuple(f"{names[own]}[{place - starts[own]}]" for own, place in zip(owners, places.tolist(), strict=True))


def _flat(vector: Weights) -> Float64[Tensor, " weights"]:
    return torch.cat([value.double().flatten() for value in vector.values()]).cpu()


def _kurtosis(squares: Tensor, fourths: Tensor, draws: int) -> Tensor:
    """From sums over the draws of squares and fourth powers."""
    return (draws + 2) * fourths / squares.square() - 3
