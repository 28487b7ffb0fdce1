"""Langevin chains on a function: many side by side, with full or minibatch gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.training.diverged import DivergedError
from flatprobe.utils.arguments import Number, Whole, at_least, given, positive, scalar
from flatprobe.utils.results import Result, settings
from flatprobe.utils.rng import draws_normal, sample_integers

if TYPE_CHECKING:
    import pandas

# Noise is drawn for several steps at once, of about this many numbers. Its law does not depend on the block.
_BLOCK = 2**21


@dataclass(frozen=True, kw_only=True, repr=False)
class LangevinChains(Result):
    """Positions of Langevin chains.

    Attributes:
        positions: the kept positions, (draws, chains, dimensions). Draw j is that after step
            burn_in + (j + 1) thinning.
    """

    positions: Float[Tensor, "draws chains dimensions"]

    def to_frame(self) -> "pandas.DataFrame":
        """One row per draw and chain: `draw`, `chain`, and one column per coordinate, `w1`, `w2`, and so on."""
        import pandas as pd

        draws, chains, dimensions = self.positions.shape
        draw, chain = np.divmod(np.arange(draws * chains), chains)
        values = self.positions.reshape(-1, dimensions).cpu().numpy()
        columns = {f"w{number + 1}": values[:, number] for number in range(dimensions)}
        return pd.DataFrame({"draw": draw, "chain": chain, **columns})

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "LangevinChains":
        """The inverse of `to_frame`."""
        values = torch.from_numpy(frame.drop(columns=["draw", "chain"]).to_numpy().copy())
        return cls(positions=values.view(int(frame["draw"].max()) + 1, -1, values.shape[1]), settings=settings)


def langevin_chains(
    potential: Callable[..., Tensor],
    start: Float[Tensor, "chains dimensions"],
    *,
    rate: Number,
    temperature: Number,
    steps: Whole,
    burn_in: Whole = 0,
    thinning: Whole = 1,
    terms: Whole | None = None,
    batch_size: Whole | None = None,
    seed: Whole = 0,
) -> LangevinChains:
    """w_{t+1} = w_t - r grad U(w_t) + sqrt(2 r T) n_t, n_t ~ N(0, I), for many chains side by side.

    As r -> 0 the stationary law is Boltzmann's, with density proportional to exp(-U(w) / T) (Poggio et al. 2017, eq. 9
    [T3]). At a finite rate the law differs by O(r). On U = k w^2 / 2 it is normal with variance T / (k (1 - r k / 2)),
    and chains diverge for r k >= 2. Chains reach the stationary law only if they cross the barriers of U: the time to
    cross grows as exp(barrier / T), so that barrier / T should be at most about 3.

    With `terms` N, U is the mean of N terms and each chain draws its own minibatch in each step, with replacement. The
    gradient is then that of the minibatch. Temperature 0 gives SGD, and a positive one SGDL ([T3], eq. 5).
    The noise of a minibatch adds to that of the temperature, and the stationary law is no longer Boltzmann's at T.

    Noise and minibatches are functions of (seed, step, chain), so that chain i and step t are the same whatever the
    numbers of chains and steps. Cost: 1 forward and 1 backward pass of the potential per step, over all chains.

    Args:
        potential: differentiable function of the positions (chains, dimensions) with one value per chain, (chains,).
            With `terms` it takes a second argument: the numbers of the terms, (chains, batch_size), of which it returns
            the mean. The value of a chain must depend on that chain's position alone.
        start: positions before the first step, (chains, dimensions), floating. Their dtype and device are those of the
            chains; float64 is advised. The noise is drawn in float32.
        rate: r, in units of w^2 / U.
        temperature: T, in units of U, at least 0.
        steps: number of steps.
        burn_in: steps whose positions are not kept; 0 keeps all.
        thinning: one position is kept per so many steps after the burn-in; 1 keeps all, which takes
            steps x chains x dimensions numbers of memory.
        terms: N, the number of terms of a finite sum; None for full gradients.
        batch_size: terms per step and chain; required with `terms`.
        seed: of the noise and the minibatches.

    Returns:
        `LangevinChains`.

    Raises:
        TypeError: if the start is no floating tensor.
        ValueError: for an argument out of range, or a potential without one value per chain.
        DivergedError: if a position is not finite.

    >>> import torch
    >>> found = langevin_chains(
    ...     lambda w: (w**2).sum(1) / 2, torch.zeros(2000, 3), rate=0.1, temperature=0.5, steps=100, burn_in=99
    ... )
    >>> tuple(found.positions.shape), round(float(found.positions.var()), 1)  # 0.5 / (1 - 0.1 / 2) = 0.526
    ((1, 2000, 3), 0.5)
    """
    if not start.is_floating_point() or start.ndim != 2:
        msg = f"start must be a floating tensor (chains, dimensions), got {start!r:.100}. Give one row per chain"
        raise TypeError(msg)
    arguments = _checked(
        rate=rate, temperature=temperature, steps=steps, burn_in=burn_in, thinning=thinning, terms=terms,
        batch_size=batch_size,
    )  # fmt: skip
    chains, dimensions = start.shape
    scale = (2 * rate * temperature) ** 0.5
    position = start.detach().clone()
    kept = []
    block = max(1, _BLOCK // max(1, start.numel()))
    for first in range(0, steps, block):
        last = min(first + block, steps)
        noise = None
        if scale:
            noise = draws_normal(
                range(chains), first, last, (dimensions,), seed, "langevin chains", device=start.device
            )
        for t in range(first, last):
            batch: tuple[Tensor, ...] = ()
            if terms is not None and batch_size is not None:
                batch = (sample_integers(0, chains, batch_size, terms, seed, "langevin minibatch", t).to(start.device),)
            position = position - rate * _gradient(potential, position, batch)
            if noise is not None:
                position += scale * noise[:, t - first].to(position)
            if t >= burn_in and (t + 1 - burn_in) % thinning == 0:
                kept.append(position)
        if not position.isfinite().all():
            msg = (
                f"positions must be finite, got infinity or NaN within steps {first + 1} to {last}. "
                f"Lower the rate, {rate}, below 2 / (largest curvature of the potential)"
            )
            raise DivergedError(msg)
    subject = {"potential": getattr(potential, "__name__", type(potential).__name__), "chains": chains}
    subject |= {"dimensions": dimensions, "dtype": str(start.dtype), "device": str(start.device)}
    return LangevinChains(
        positions=torch.stack(kept), settings=settings("langevin_chains", subject, **arguments, seed=seed)
    )


def _gradient(potential: Callable[..., Tensor], position: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
    with torch.enable_grad():
        w = position.detach().requires_grad_()
        values = potential(w, *batch)
        if values.shape != position.shape[:1]:
            shape = tuple(values.shape)
            msg = f"the potential must return one value per chain, ({len(w)},), got {shape}. Sum over the coordinates"
            raise ValueError(msg)
        return torch.autograd.grad(values.sum(), w)[0]


def _checked(**arguments: Any) -> dict[str, Any]:
    """The arguments as Python numbers.

    Raises:
        ValueError: for an argument out of range.
    """
    given(**{name: value for name, value in arguments.items() if name not in ("terms", "batch_size")})
    positive(rate=arguments["rate"], temperature=arguments["temperature"] or None)
    at_least(1, **{name: arguments[name] for name in ("steps", "thinning", "terms", "batch_size")})
    at_least(0, burn_in=arguments["burn_in"])
    if (arguments["terms"] is None) != (arguments["batch_size"] is None):
        msg = (
            f"terms and batch_size must be given together, got {arguments['terms']} and {arguments['batch_size']}. "
            "Give both for minibatch gradients, or neither"
        )
        raise ValueError(msg)
    shortest = arguments["burn_in"] + arguments["thinning"]
    if shortest > arguments["steps"]:
        msg = f"steps must be at least burn_in + thinning, {shortest}, got {arguments['steps']}. Take more steps"
        raise ValueError(msg)
    return {name: scalar(value) for name, value in arguments.items()}
