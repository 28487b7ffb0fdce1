"""First exit of a scalar function from a band, without any network."""

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Largest factor of one bracketing step: an increase that grows like r^2 is then never sampled more coarsely than 16 to
# 1.
_STRIDE = 4.0

# The probing ratio covers the radii from this share of the largest radius inside: below it, evaluations always leave
# out an interval above 0.
PROBED = 1e-2

# A function that is still outside at this fraction of an outside radius jumps at 0, and has no exit to measure.
_FLOOR = 1e-12


@dataclass(frozen=True)
class Exit:
    """First exit of a function from its band.

    Attributes:
        radius: the crossing, interpolated inside the bracket; infinite where `max_radius` was inside.
        lower: largest radius of the bracket known to be inside; 0 where the function is outside at every radius tried
            (then the bracket certifies only that the exit is below `upper`).
        upper: smallest radius of the bracket known to be outside; infinite where none was found.
        slope: d log(increase) / d log(r) near the exit, nan where it is not known.
        evaluations: calls of the function.
        excursions: earlier exits that `verify` found.
        probing_ratio: the largest ratio b / a of an interval of [lower / 100, lower] in which nothing was evaluated.
            No excursion from a to b with a larger ratio was missed there; narrower excursions may have been. 100 where
            only `lower` was evaluated there, infinite where `lower` is 0.
        probed_from: the smallest radius evaluated.
    """

    radius: float
    lower: float
    upper: float
    slope: float
    evaluations: int
    excursions: int
    probing_ratio: float
    probed_from: float

    @property
    def reached(self) -> bool:
        """True if the function left the band at or before `max_radius`."""
        return math.isfinite(self.upper)


# A search yields the next radius and is sent the increase there.
Search = Generator[float, float, Exit]
_Part = Generator[float, float, None]


@dataclass
class _Search:
    """State of one search: the points evaluated and the bracket [lower, upper]."""

    level: float
    rtol: float
    points: dict[float, float] = field(default_factory=dict)
    lower: float = 0.0
    upper: float = math.inf

    def evaluate(self, radius: float) -> Generator[float, float, bool]:
        """Yield a radius, narrow the bracket by its increase, and return whether the radius is inside.

        A value that is not finite is outside.
        """
        value = abs((yield radius))
        value = value if math.isfinite(value) else math.inf
        self.points[radius] = value
        inside = value <= self.level
        if inside:
            self.lower = max(self.lower, radius)
        else:
            self.upper = min(self.upper, radius)
        return inside

    @property
    def certified(self) -> bool:
        return self.upper <= self.lower * (1 + self.rtol)

    def slope(self, guess: float) -> float:
        """d log(increase) / d log(r) from the two points nearest the level, or the guess."""
        usable = [(math.log(r), math.log(v)) for r, v in self.points.items() if r > 0 and 0 < v < math.inf]
        usable.sort(key=lambda point: abs(point[1] - math.log(self.level)))
        for place, second in enumerate(usable):
            for first in usable[:place]:
                run, rise = second[0] - first[0], second[1] - first[1]
                if abs(run) >= 0.01 and rise * run > 0:  # 0.01: below it, rounding in the loss decides the slope
                    return min(max(rise / run, 0.25), 16.0)
        return guess

    def crossing(self, slope: float) -> float:
        """The radius at which the increase meets the level, by interpolation."""
        below, above = self.points.get(self.lower, 0.0), self.points.get(self.upper, math.inf)
        if self.lower > 0 and 0 < below < above < math.inf:
            share = math.log(self.level / below) / math.log(above / below)
            return self.lower * math.exp(share * math.log(self.upper / self.lower))
        usable = [(r, v) for r, v in self.points.items() if r in {self.lower, self.upper} and 0 < v < math.inf]
        if not usable:
            return math.nan
        radius, value = min(usable, key=lambda point: abs(math.log(point[1] / self.level)))
        return radius * math.exp(min(max(math.log(self.level / value) / slope, -30.0), 30.0))

    def midpoint(self) -> float:
        """The geometric middle of the bracket, or a quarter of its upper bound."""
        return math.sqrt(self.lower * self.upper) if self.lower > 0 else self.upper / _STRIDE


def exit_search(
    level: float,
    *,
    start: float,
    max_radius: float,
    rtol: float = 1e-2,
    slope: float = 2.0,
    smooth: bool = True,
    verify: int = 0,
) -> Search:
    """First exit sup{ r : |increase(s)| <= level for all s <= r } with a bracket.

    The radius grows or shrinks from `start` until the exit is bracketed. Each step goes to the crossing that a power
    law through the last value predicts. Within the bracket the next radius is the secant's crossing in
    (log r, log increase), moved by half a tolerance into the wider part, so that its value closes that part. A bracket
    that has not halved in three steps is halved. The search ends only when an inside radius and an outside radius
    within rtol of each other have both been evaluated.

    Certified: inside at `lower`, outside at `upper`, and inside at every evaluated radius below. The exit is certified
    to be the *first* only if the increase is monotone up to it. `verify` looks for earlier exits, down to
    1 / (verify + 1) of the radius, and `probing_ratio` bounds the width of an excursion that was missed.

    Args:
        level: epsilon, in the units of the increase.
        start: first radius tried; a good guess, such as the radius of an earlier direction, saves evaluations.
        max_radius: an exit beyond this radius is reported as not reached.
        rtol: relative width of the final bracket.
        slope: guess of d log(increase) / d log(r); 2 is a quadratic minimum.
        smooth: False for step functions, which have no secants: the bracket is halved instead.
        verify: number of radii evaluated evenly over (0, lower) once the bracket is closed; the search restarts below
            the first of them that is outside, and counts an excursion.

    Returns:
        A generator of radii, which is sent the increase I(w + r u) - I(w) at each, and returns the exit. An increase
        that is not finite counts as outside.
    """
    search = _Search(level, rtol)
    yield from _expand(search, min(start, max_radius), max_radius, slope, smooth=smooth)
    excursions = 0
    while True:
        if math.isfinite(search.upper):
            yield from _shrink(search, slope, smooth=smooth)
            yield from _close(search, slope, smooth=smooth)
        outside = yield from _earlier_exit(search, min(search.lower, max_radius), verify)
        if outside is None:
            break
        excursions += 1
        search.upper = outside
        search.lower = max((r for r, v in search.points.items() if r < outside and v <= level), default=0.0)
    final = search.slope(slope)
    reached = math.isfinite(search.upper)
    radius = search.crossing(final) if reached and smooth else search.midpoint() if reached else math.inf
    if reached and not search.lower <= radius <= search.upper:  # the crossing was extrapolated from a jump
        radius = search.midpoint()
    return Exit(
        radius=radius,
        lower=search.lower,
        upper=search.upper,
        slope=search.slope(math.nan),
        evaluations=len(search.points),
        excursions=excursions,
        probing_ratio=_probing_ratio(search.points, search.lower),
        probed_from=min(search.points),
    )


def first_exits(increases: Callable[[Mapping[int, float]], Sequence[float]], searches: Sequence[Search]) -> list[Exit]:
    """Exits of several searches, whose next radii are evaluated together.

    Args:
        increases: {k: r} -> the increases along the directions k at r, in this order.
        searches: one `exit_search` per direction.

    Returns:
        The exits.
    """
    exits: dict[int, Exit] = {}
    pending = {place: next(search) for place, search in enumerate(searches)}
    while pending:
        for place, value in zip([*pending], increases(pending), strict=True):
            try:
                pending[place] = searches[place].send(value)
            except StopIteration as end:
                exits[place] = end.value
                del pending[place]
    return [exits[place] for place in range(len(searches))]


def first_exit(increase: Callable[[float], float], level: float, **options: Any) -> Exit:
    """The exit of one function r -> I(w + r u) - I(w); the options are those of `exit_search`."""
    return first_exits(lambda pending: [increase(pending[0])], [exit_search(level, **options)])[0]


def _expand(search: _Search, start: float, max_radius: float, slope: float, *, smooth: bool) -> _Part:
    """Grow the radius until it is outside, or max_radius is inside."""
    radius = start
    while (yield from search.evaluate(radius)) and radius < max_radius:
        radius = min(_beyond(search, slope, smooth=smooth), max_radius)


def _shrink(search: _Search, slope: float, *, smooth: bool) -> _Part:
    """Shrink the radius until it is inside."""
    floor = search.upper * _FLOOR
    while search.lower == 0.0 and search.upper > floor:
        yield from search.evaluate(_below(search, slope, smooth=smooth))


def _beyond(search: _Search, slope: float, *, smooth: bool) -> float:
    """The next larger radius, half a tolerance above the predicted crossing."""
    crossing = search.crossing(search.slope(slope)) if smooth else math.nan
    if math.isnan(crossing):
        return search.lower * _STRIDE
    nearest = search.lower * (1 + search.rtol * 0.99)
    return min(max(crossing * (1 + search.rtol / 2), nearest), search.lower * _STRIDE)


def _below(search: _Search, slope: float, *, smooth: bool) -> float:
    """The next smaller radius, half a tolerance below the predicted crossing."""
    crossing = search.crossing(search.slope(slope)) if smooth else math.nan
    if math.isnan(crossing):
        return search.upper / _STRIDE
    nearest = search.upper / (1 + search.rtol * 0.99)
    return max(min(crossing * (1 - search.rtol / 2), nearest), search.upper / _STRIDE**2)


def _close(search: _Search, slope: float, *, smooth: bool) -> _Part:
    """Narrow the bracket to the tolerance."""
    widths = [math.inf]
    while not search.certified and search.lower > 0:
        width = math.log(search.upper / search.lower)
        stalled = len(widths) >= 3 and width > widths[-3] / 2
        widths.append(width)
        radius = search.midpoint() if stalled or not smooth else _secant(search, slope)
        if radius in search.points:  # the tolerance is finer than the spacing of the numbers
            break
        yield from search.evaluate(radius)


def _secant(search: _Search, slope: float) -> float:
    low, high, rtol = search.lower, search.upper, search.rtol
    crossing = search.crossing(search.slope(slope))
    if not low < crossing < high:
        return search.midpoint()
    if high <= crossing * (1 + rtol * 0.99):  # the upper bound is close: a lower bound that certifies with it
        return max(high / (1 + rtol * 0.99), low * (1 + rtol / 4))
    if low * (1 + rtol * 0.99) >= crossing:  # the lower bound is close: an upper bound that certifies with it
        return min(low * (1 + rtol * 0.99), high / (1 + rtol / 4))
    return crossing * (1 + rtol / 2) if high / crossing > crossing / low else crossing * (1 - rtol / 2)


def _earlier_exit(search: _Search, lower: float, verify: int) -> Generator[float, float, float | None]:
    """The first outside of `verify` evenly spaced radii below `lower`, or None."""
    for j in range(1, verify + 1):
        radius = lower * j / (verify + 1)
        if radius > 0 and radius not in search.points and not (yield from _inside(search, radius)):
            return radius
    return None


def _inside(search: _Search, radius: float) -> Generator[float, float, bool]:
    lower, upper = search.lower, search.upper
    inside = yield from search.evaluate(radius)
    search.lower, search.upper = lower, upper
    return inside


def _probing_ratio(radii: Iterable[float], lower: float) -> float:
    ordered = sorted({lower * PROBED, lower, *(r for r in radii if lower * PROBED < r < lower)})
    return max(b / a for a, b in itertools.pairwise(ordered)) if lower > 0 else math.inf
