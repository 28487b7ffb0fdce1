"""Poggio et al. (2017), Figs. 8 and 10: Langevin, SGD and SGDL on a plane with a degenerate minimum."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact
from analyses.theory3_2017.langevin_dimensions import DEGENERATE
from analyses.theory3_2017.langevin_potentials import TEMPERATURE, Chains, deviation, extrapolated, right_masses, tidy

HEIGHT = 2.5  # of the histogram, |w_2|
TERMS = 100  # of the finite sum
BATCH = 10  # terms per step and chain
BOLTZMANN, LANGEVIN, SGD, SGDL = "Boltzmann", "Langevin", "SGD", "SGDL"
AT_ZERO = "SGD, terms that share their minima"
AGREES = "the share of the degenerate minimum, extrapolated to rate 0, is Boltzmann's within 4 standard errors"
STAYS = "SGD on terms that share their minima, as at zero training error, never leaves the minimum where it starts"
PREFERS = "{} gives the degenerate minimum more than half of the mass"
Run = tuple[Callable[..., Tensor], dict[str, object]]  # a potential, and arguments of the chains


def _scatter() -> Tensor:
    """c_i in the plane, with mean 0 and covariance I over the terms."""
    points = torch.randn(TERMS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points -= points.mean(0)
    return points @ torch.linalg.inv(torch.linalg.cholesky(points.T @ points / TERMS)).T


SCATTER = _scatter()
MINIBATCH = {"terms": TERMS, "batch_size": BATCH}


def langevin(_rate: float) -> Run:
    """Full gradients and noise of temperature T."""
    return DEGENERATE, {"temperature": TEMPERATURE}


def tilted(rate: float, share: float) -> Run:
    """U_i = U + s c_i . w, where s gives the minibatch noise a share of the power of temperature T; noise the rest."""
    strength = (2 * TEMPERATURE * share * BATCH / rate) ** 0.5

    def potential(w: Tensor, numbers: Tensor) -> Tensor:
        return DEGENERATE(w) + strength * (SCATTER[numbers].mean(1) * w).sum(1)

    return potential, MINIBATCH | {"temperature": TEMPERATURE * (1 - share)}


def scaled(_rate: float) -> Run:
    """U_i = (1 + 2 c_i1) U: all terms have the minima of U, where the minibatch noise is 0."""
    return lambda w, numbers: (1 + 2 * SCATTER[numbers, 0].mean(1)) * DEGENERATE(w), MINIBATCH | {"temperature": 0.0}


LAWS = {
    LANGEVIN: langevin,
    SGD: lambda rate: tilted(rate, 1.0),
    SGDL: lambda rate: tilted(rate, 0.5),
    AT_ZERO: scaled,
}


def table(settings: Chains, laws: Sequence[str]) -> pd.DataFrame:
    """Histograms over the plane, by law and rate; the quadrature has rate 0."""
    edges = [settings.edges(*DEGENERATE.extent), settings.edges(-HEIGHT, HEIGHT)]
    parts = [tidy(DEGENERATE.plane(edges)[None], edges, law=BOLTZMANN, rate=0.0)]
    for law in laws:
        for rate in settings.rates:
            potential, options = LAWS[law](rate)
            positions = settings.run(potential, DEGENERATE.start(settings.chains, 2), rate, **options)
            parts.append(tidy(settings.histograms(positions, edges), edges, law=law, rate=rate))
    return pd.concat(parts, ignore_index=True)


def rules(frame: pd.DataFrame) -> Sequence[Outcome]:
    """The preference of each law, and its distance from Boltzmann's."""
    masses = right_masses(frame, ["law", "rate"])
    expected = masses[BOLTZMANN, 0.0, 0]
    outcomes = []
    for law in (name for name in LAWS if name in masses.index.unique("law")):
        fine = masses[law][frame.loc[frame["law"] == law, "rate"].min()]
        if law == AT_ZERO:  # a finite sum of ours, which asks what the preference rests on
            outcomes.append(exact(STAYS, float((fine - 0.5).abs().max()), tolerance=0.0, unit="share", beside=True))
            continue
        outcomes.append(difference(PREFERS.format(law), fine - 0.5, unit="share - 0.5"))
        found, _ = deviation(extrapolated(masses[law]), expected)
        outcomes.append(exact(f"{law}: {AGREES}", found, tolerance=4.0, unit="standard errors"))
    return outcomes


QUICK = Chains(dimensions=(2,), rates=(0.04, 0.02), chains=400, groups=10, burn_in=20, time=24, bins=20)
CPU = Chains(dimensions=(2,), rates=(0.02, 0.01), chains=2000, groups=8, burn_in=50, time=80, bins=32)
DIFFERS = (
    "The source states neither potential, temperature, step size, steps nor domain: ours is the potential of Fig. 9 at "
    "d = 2, with barrier / T = 2, and half of the chains start near each minimum."
)

REPRODUCTIONS = (
    Reproduction(
        id="T3-F8",
        source="Poggio et al. (2017), Fig. 8",
        claim="On a plane, Langevin gradient descent prefers a degenerate minimum to a non-degenerate one of the same "
        "depth, as Boltzmann's density says.",
        presets={"quick": QUICK, "cpu": CPU},
        table=lambda settings, _study: table(settings, [LANGEVIN]),
        rules=rules,
        differs=DIFFERS,
        at_scale=("cpu",),
        cost="30 s",
    ),
    Reproduction(
        id="T3-F10",
        source="Poggio et al. (2017), Fig. 10",
        claim="SGD and SGDL both prefer the degenerate minimum.",
        presets={"quick": QUICK, "cpu": CPU},
        table=lambda settings, _study: table(settings, [SGD, SGDL, AT_ZERO]),
        rules=rules,
        differs=DIFFERS + " The source does not state what makes SGD stochastic on a potential. Our terms are "
        "U_i = U + s c_i . w, whose minibatch noise has the power of temperature T (SGD), or half of it beside noise "
        "of temperature T / 2 (SGDL); beside them U_i = (1 + 2 c_i) U, whose noise vanishes at the minima: there the "
        "preference is absent, so it rests on noise that stays at zero loss.",
        at_scale=(),  # the noise of the minibatches is ours
        cost="1 min",
    ),
)
