"""Doubts that a network is measured as it was trained, in words, for one network or several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

AS_THEY_ARE = "inputs as they are"
OWN = "mean and std of these data"
_NEAR = 0.05  # of accuracies, our choice: one normalization may then serve for several networks

Numbers = tuple[float, ...]


class Scale(NamedTuple):
    """A mean and a std of inputs, with their origin in words."""

    words: str
    mean: Numbers
    std: Numbers

    @property
    def option(self) -> str:
        """The values as `--normalise` takes them."""
        return "none" if self.words == AS_THEY_ARE else f"{numbers(self.mean)} {numbers(self.std)}"

    @property
    def python(self) -> str:
        """The network with this normalization, in Python."""
        if self.words == AS_THEY_ARE:
            return "the network itself"
        pair = (numbers(own) if len(own) == 1 else f"[{numbers(own).replace(',', ', ')}]" for own in self[1:])
        return f"fp.Normalised(network, {', '.join(pair)})"

    def closeness(self, own: tuple[float, float]) -> float:
        """Preference among pairs of equal accuracy: how little the pair differs from the mean and std of the data.

        The pair of the data themselves comes after a customary pair that is within 5 % of it.
        """
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        distance = abs(mean - own[0]) / own[1] + abs(math.log(std / own[1]))
        return -max(distance, 0.05 if self.words.startswith(OWN) else 0.0)


def numbers(values: Numbers) -> str:
    """The values with commas, to four digits.

    >>> numbers((0.13066, 0.5))
    '0.1307,0.5'
    """
    return ",".join(f"{value:.4g}" for value in values)


@dataclass(frozen=True)
class Doubt:
    """A doubt about the accuracy of one network.

    Attributes:
        accuracy: the measured accuracy.
        words: the rest of the sentence; empty where there are better normalizations.
        better: normalizations with clearly higher accuracies, and these; the best one first.
    """

    accuracy: float
    words: str = ""
    better: Mapping[Scale, float] = field(default_factory=dict)

    @property
    def good(self) -> dict[Scale, float]:
        """The better normalizations that are about as good as the best one."""
        best = max(self.better.values(), default=0.0)
        return {scale: accuracy for scale, accuracy in self.better.items() if accuracy >= best - _NEAR}

    @property
    def sentence(self) -> str:
        """The doubt in words."""
        return _sentence([self], next(iter(self.better), None))


def together(doubts: Mapping[str, Sequence[Doubt]]) -> list[tuple[list[str], str]]:
    """Names of networks and one sentence for those with the same doubt.

    Where other normalizations are better, one is named for all networks that it serves within 0.05 of their best ones:
    first the one that serves the most networks, and among equals the one with the fewest errors in total.

    Args:
        doubts: doubts by the name of the network.
    """
    found: list[tuple[list[str], str]] = []
    alike: dict[str, dict[str, Doubt]] = {}
    left: dict[str, Doubt] = {}
    for name, own in doubts.items():
        for doubt in own:
            if doubt.better:
                left[name] = doubt
            else:
                alike.setdefault(doubt.words, {})[name] = doubt
    while left:
        scale = max(
            dict.fromkeys(scale for doubt in left.values() for scale in doubt.good),
            key=lambda scale: _gain(scale, [*left.values()]),
        )
        members = {name: doubt for name, doubt in left.items() if scale in doubt.good}
        found.append(([*members], _sentence([*members.values()], scale)))
        left = {name: doubt for name, doubt in left.items() if name not in members}
    return found + [([*own], _sentence([*own.values()], None)) for own in alike.values()]


def _gain(scale: Scale, doubts: Sequence[Doubt]) -> tuple[int, float, int]:
    """Number of networks that a normalization serves, sum of their accuracies, and first places."""
    own = [doubt.good[scale] for doubt in doubts if scale in doubt.good]
    return len(own), round(sum(own), 9), sum(next(iter(doubt.better)) == scale for doubt in doubts)


def _sentence(doubts: Sequence[Doubt], scale: Scale | None) -> str:
    accuracy = _spread([doubt.accuracy for doubt in doubts])
    if scale is None:
        return f"accuracy {accuracy}{doubts[0].words}"
    better = _spread([doubt.better[scale] for doubt in doubts])
    cure = f"with --normalise {scale.option} it is {better} ({scale.words}; in Python {scale.python})"
    return f"accuracy {accuracy}; {cure}"


def _spread(shares: Sequence[float]) -> str:
    """The share, or the smallest and the largest one, in percent."""
    ends = dict.fromkeys([percent(min(shares)), percent(max(shares))])
    return " to ".join(ends)


def percent(share: float) -> str:
    """A share in percent, to one digit.

    >>> percent(0.5)
    '50.0 %'
    """
    return f"{100 * share:.1f} %"
