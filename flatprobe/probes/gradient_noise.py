"""Gradient noise: the minibatch gradient minus the gradient over all data, at fixed weights."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, select
from flatprobe.risk.derivatives import precise_square
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.utils import rng
from flatprobe.utils.arguments import Selection, Whole, at_least
from flatprobe.utils.results import Result, settings

_DRAWN = 2**12  # Positions that are drawn at once.
_SMALL = 2**14  # Numbers of a tensor that is joined with others, since each operation has its overhead.


@dataclass(frozen=True, kw_only=True, repr=False)
class GradientNoise(Result):
    """xi = minibatch gradient - full gradient: sampled components of xi, and its squared length, per draw.

    The table has one row per draw and component; `squared_length` is that of the draw.

    Attributes:
        noise: (draws, components) sampled components of xi, in units of the loss per unit of weight.
        components: names of the components, such as "0.weight[37]" (the flat index).
        gradient: (components,) the full gradient at the components.
        squared_lengths: (draws,) ||xi||^2 over all selected parameters.
        gradient_norm: ||grad I|| over all selected parameters.
        inflation: trace of the covariance of one sample's gradient over E ||xi||^2: B with replacement, B (n - 1) /
            (n - B) without.
        live: number of components with a nonzero full gradient, among which the sampled ones are drawn.
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
        """tr Sigma / ||grad I||^2: the minibatch size, in samples, whose noise is as long as the gradient."""
        return float(self.trace_covariance / self.gradient_norm**2)

    @property
    def noise_scale_error(self) -> float:
        """The standard error of the noise scale over the draws."""
        spread = float(self.squared_lengths.std()) / len(self.squared_lengths) ** 0.5
        return float(self.inflation * spread / self.gradient_norm**2)

    @property
    def kurtosis(self) -> Float64[Tensor, " components"]:
        """Excess kurtosis per component over the draws: 0 for normal noise, with standard error sqrt(24/draws).

        (D + 2) / D m4 / m2^2 - 3 over D draws, with moments about 0, the mean of the noise. Unbiased for normal noise.
        """
        return _kurtosis(self.noise.square().sum(0), self.noise.pow(4).sum(0), len(self.noise))

    @property
    def mean_kurtosis(self) -> float:
        """Mean of `kurtosis` over the components."""
        return float(self.kurtosis.mean())

    @property
    def mean_kurtosis_error(self) -> float:
        """Standard error of `mean_kurtosis` by the jackknife over draws, valid for dependent components."""
        squares, fourths, draws = self.noise.square(), self.noise.pow(4), len(self.noise)
        without = _kurtosis(squares.sum(0) - squares, fourths.sum(0) - fourths, draws - 1).mean(1)
        return float(((draws - 1) / draws * (without - without.mean()).square().sum()).sqrt())

    def summary(self) -> dict[str, float]:
        """Noise scale and mean excess kurtosis with standard errors, tr Sigma and ||grad I||."""
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
    """xi = (1/B) sum_{i in z} grad l_i - grad I over random minibatches z of B samples, at fixed weights.

    T3 argues that the components of xi are nearly normal, which `kurtosis` tests. The *noise scale* is
    tr Sigma / ||grad I||^2, Sigma being the covariance of the per-sample gradients. It is the "simple noise scale" of
    McCandlish et al. (2018) with the data set in place of the distribution. The estimate is unbiased, from
    E ||xi||^2 = tr Sigma / B * (n - B) / (n - 1), whose last factor is 1 with replacement. Where the network
    interpolates, ||grad I|| is nearly 0 and the scale is large.

    Cost: 1 gradient over the data, and 1 gradient of B samples per draw; per-sample gradients are never formed. Memory:
    the full gradient, one minibatch gradient, and `components` numbers per draw.

    Args:
        risk: an `EmpiricalRisk`. BatchNorm uses its running statistics, so samples do not depend on each other.
        batch_size: B; 128 is the default of `fp.train` (T3 gives no size).
        draws: independent minibatches; 200 (our choice) leaves a standard error of 0.35 in a component's kurtosis.
        replacement: True draws samples with replacement; False is T3's z subset of [n], as in an epoch of SGD.
        components: number of components kept, drawn at random from those with a nonzero full gradient, or all if there
            are fewer. The weights of a dead unit or an always black pixel have no noise.
        parameters: None for all, `"last"`, or names or patterns.
        seed: minibatch k is a function of (seed, k), the components of the seed.

    Returns:
        `GradientNoise`.

    Raises:
        ValueError: for an argument out of range, or a selection that matches nothing.
        ValueError: for a minibatch as large as the data, which has no noise without replacement.
        ValueError: if the full gradient is 0 throughout, or is not finite.
        TypeError: for a risk without data.

    Source: Poggio et al. (2017), eqs 7 and 8 and Fig. 5 [T3].
    """
    if not isinstance(risk, EmpiricalRisk):
        msg = (
            f"the risk must be an fp.EmpiricalRisk, from whose data the minibatches are drawn, got a "
            f"{type(risk).__name__}"
        )
        raise TypeError(msg)
    at_least(1, batch_size=batch_size, components=components)
    at_least(2, draws=draws)
    count = len(risk.data)
    if count < 2:
        msg = "the data must hold at least 2 samples, got 1, whose gradient is the full one. Add samples"
        raise ValueError(msg)
    if not replacement and batch_size >= count:
        msg = (
            f"batch_size must be below the number of samples, {count}, got {batch_size}. All samples together have no "
            "noise: lower batch_size, or give replacement=True"
        )
        raise ValueError(msg)
    names = select(risk.center, parameters)
    full = risk.gradient(names=names)
    live = _live(risk, full)
    kept = _choose(full, live, components, seed)
    gradient = kept.of(full)
    noise, squared = [], []
    means = _joined(full)
    xi = [torch.empty_like(part) for part in means]
    sums = risk.gradient_sums(names)
    for positions in _minibatches(count, batch_size, draws, replacement, seed):
        total = sums(positions)
        noise.append(kept.of(total) / batch_size - gradient)
        for part, mean, out in zip(_joined(total), means, xi, strict=True):
            torch.sub(part, mean, alpha=batch_size, out=out)
        del total, part  # before the next gradient
        squared.append(_square(xi) / batch_size**2)
    derived: dict[str, Any] = {
        "gradient_norm": float(_square(means).sqrt()),
        "inflation": float(batch_size if replacement else batch_size * (count - 1) / (count - batch_size)),
        "live": live,
    }
    arguments = {
        "batch_size": batch_size, "draws": draws, "replacement": replacement, "components": components,
        "parameters": as_given(parameters), "seed": seed,
    }  # fmt: skip
    return GradientNoise(
        noise=torch.stack(noise).cpu(),
        components=kept.labels,
        gradient=gradient.cpu(),
        squared_lengths=torch.stack(squared).cpu(),
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


def _live(risk: RiskFunction, full: Weights) -> int:
    """The number of components that are not 0.

    Raises:
        ValueError: if no logit depends on the selection, or the gradient is not finite, or 0 throughout.
    """
    finite, live = (
        torch.stack(parts)
        for parts in zip(*((v.isfinite().all(), v.count_nonzero()) for v in full.values()), strict=True)
    )
    if not bool(finite.all()) or not bool(live.any()):
        check_acts(risk, tuple(full))  # A gradient that is not 0 acts.
        found = "not finite" if bool(live.any()) else "0 in every selected parameter"
        msg = f"the full gradient must be finite and not 0, got one that is {found}. Probe in float64, or select others"
        raise ValueError(msg)
    return int(live.sum())


@dataclass(frozen=True)
class _Components:
    """Some components of a gradient: parameter -> flat positions in it, in order."""

    places: dict[str, Int64[Tensor, " places"]]

    @classmethod
    def at(cls, flat: Int64[Tensor, " places"], full: Weights) -> "_Components":
        """The components at increasing positions in the concatenation of all parameters."""
        sizes = torch.tensor([value.numel() for value in full.values()], device="cpu")
        starts = sizes.cumsum(0) - sizes
        bounds = torch.searchsorted(flat, torch.cat([starts, starts[-1:] + sizes[-1:]])).tolist()
        found = {}
        for place, (name, value) in enumerate(full.items()):
            own = flat[bounds[place] : bounds[place + 1]] - starts[place]
            if len(own):
                found[name] = own.to(value.device)
        return cls(found)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{name}[{place}]" for name, places in self.places.items() for place in places.tolist())

    def of(self, vector: Weights) -> Float64[Tensor, " components"]:
        return torch.cat([vector[name].take(places).double() for name, places in self.places.items()])


def _choose(full: Weights, live: int, components: int, seed: int) -> _Components:
    """Distinct random components that are not 0, or all of them if there are fewer."""
    if live <= 2 * components:
        starts = itertools.accumulate((value.numel() for value in full.values()), initial=0)
        flat = torch.cat(
            [
                value.flatten().nonzero().flatten().cpu() + start
                for value, start in zip(full.values(), starts, strict=False)
            ]
        )
        chosen = flat[rng.permutation(live, seed, "components")[:components]]
        return _Components.at(chosen.sort().values, full)
    # Uniform positions, of which the zeros and the repeated ones are rejected.
    generator, total = rng.generator(seed, "components"), sum(value.numel() for value in full.values())
    found: dict[int, None] = {}
    while len(found) < components:
        positions = torch.randint(total, (_DRAWN,), generator=generator, device="cpu")
        for drawn in torch.split(positions, 4 * components):
            flat, order = drawn.sort()
            acts = torch.empty_like(drawn, dtype=torch.bool)
            acts[order] = _Components.at(flat, full).of(full).cpu() != 0
            found.update(dict.fromkeys(drawn[acts].tolist()))
            if len(found) >= components:
                break
    return _Components.at(torch.tensor(list(found)[:components], device="cpu").sort().values, full)


def _joined(vector: Weights) -> list[Tensor]:
    """The flat tensors, the small ones joined."""
    flat = [value.flatten() for value in vector.values()]
    small = [value for value in flat if len(value) <= _SMALL]
    return [value for value in flat if len(value) > _SMALL] + ([torch.cat(small)] if small else [])


def _square(parts: list[Tensor]) -> Float64[Tensor, ""]:
    """The squared length, summed in float64 on the device."""
    return torch.stack([precise_square(part) for part in parts]).sum()


def _kurtosis(squares: Tensor, fourths: Tensor, draws: int) -> Tensor:
    """Excess kurtosis of values with mean 0, from the sums of their squares and fourth powers over the draws."""
    return (draws + 2) * fourths / squares.square() - 3
