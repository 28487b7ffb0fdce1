"""Flatness radius: evaluations and wall time a direction, against bracket-and-bisect and a fixed-step walk."""

import math
from collections.abc import Callable, Iterator

import flatprobe as fp
from flatprobe.network.weights import move
from flatprobe.risk.directions import direction
from tests.benchmarks.harness import Row, interleaved, trained

EPSILON = 0.05
RTOL = 1e-2
DIRECTIONS = 10
WALKED = 1  # directions of the walk, which takes a hundred evaluations for each
ROUNDS = {"MLP": 3, "CNN": 2, "ResNet": 1}


def bisected(increase: Callable[[float], float], start: float) -> tuple[float, int]:
    """Double or halve until bracketed, then halve the bracket down to the tolerance."""
    low, high, calls = 0.0, math.inf, 0
    radius = start
    while low == 0 or math.isinf(high):
        calls += 1
        if increase(radius) <= EPSILON:
            low, radius = radius, radius * 2
        else:
            high, radius = radius, radius / 2
    while high > low * (1 + RTOL):
        middle = math.sqrt(low * high)
        calls += 1
        if increase(middle) <= EPSILON:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high), calls


def walked(increase: Callable[[float], float], step: float) -> tuple[float, int]:
    """Fixed steps outward until the loss has risen, as existing libraries do."""
    calls, radius = 0, 0.0
    while True:
        radius += step
        calls += 1
        if increase(radius) > EPSILON:
            return radius, calls


class Contest:
    """The variants on one network: in each round the same fresh directions for all of them."""

    def __init__(self, name: str) -> None:
        self.model, self.data = trained(name)
        self.risk = fp.EmpiricalRisk(self.model, self.data)
        self.base = self.risk().loss
        self.seed = -1
        self.radii: list[float] = []
        self.evaluations: dict[str, float] = {}

    def increase(self, k: int) -> Callable[[float], float]:
        u = direction(self.risk.center, tuple(self.risk.center), "isotropic", self.seed, k)
        return lambda r: abs(self.risk(move(self.risk.center, u, r)).loss - self.base)

    def ours(self) -> None:
        self.seed += 1
        result = fp.flatness_radius(self.risk, epsilon=EPSILON, directions=DIRECTIONS, rtol=RTOL, seed=self.seed)
        self.radii = result.radii.tolist()
        self.evaluations["flatprobe"] = float(result.evaluations.double().mean())

    def bisect(self) -> None:
        exits = [bisected(self.increase(k), self.radii[0]) for k in range(DIRECTIONS)]
        errors = [abs(r / own - 1) for (r, _), own in zip(exits, self.radii, strict=True)]
        assert max(errors) < 2 * RTOL, errors
        self.evaluations["bracket and bisect"] = sum(calls for _, calls in exits) / DIRECTIONS

    def walk(self) -> None:
        exits = [walked(self.increase(k), self.radii[k] / 100) for k in range(WALKED)]
        self.evaluations["walk of 1 % steps"] = sum(calls for _, calls in exits) / WALKED


def rows() -> Iterator[Row]:
    for name, rounds in ROUNDS.items():
        contest = Contest(name)
        variants = {"flatprobe": contest.ours, "bracket and bisect": contest.bisect, "walk of 1 % steps": contest.walk}
        for variant, number, seconds in interleaved(variants, rounds):
            yield {
                "network": name,
                "variant": variant,
                "round": number,
                "samples": len(contest.data),
                "evaluations_per_direction": contest.evaluations[variant],
                "seconds_per_direction": seconds / (WALKED if variant.startswith("walk") else DIRECTIONS),
            }
