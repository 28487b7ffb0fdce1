"""Learning rate schedules: pure functions of the epoch, whose values multiply the learning rate."""

import math
from collections.abc import Callable, Mapping, Sequence

Schedule = str | Mapping[str, object] | None


def constant(epoch: int, epochs: int) -> float:  # noqa: ARG001 - all schedules are called alike
    """1 in every epoch (N20)."""
    return 1.0


def step(epoch: int, epochs: int, stages: Sequence[Sequence[float]]) -> float:  # noqa: ARG001
    """Piecewise constant: each stage is (factor, its number of epochs); the last one goes on to the end (S17).

    S17's section VI-C2 at learning rate 0.1 is `stages=[(1, 30), (0.1, 30), (0.01, 30)]`.

    >>> [step(epoch, 5, [(1.0, 2), (0.5, 1)]) for epoch in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.5]
    """
    for factor, length in stages:
        if epoch < length:
            return float(factor)
        epoch -= int(length)
    return float(stages[-1][0])


def cosine(epoch: int, epochs: int) -> float:
    """(1 + cos(pi epoch / epochs)) / 2: from 1 in the first epoch to nearly 0 in the last.

    >>> [round(cosine(epoch, 4), 3) for epoch in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


SCHEDULES: dict[str, Callable[..., float]] = {"constant": constant, "step": step, "cosine": cosine}


def factors(schedule: Schedule, epochs: int) -> list[float]:
    """The factor of every epoch.

    Args:
        schedule: None (constant); a name; or a name with its arguments, as in
            `{"name": "step", "stages": [(1, 30), (0.1, 30)]}`.
        epochs: the number of epochs in the whole training.

    Returns:
        One factor an epoch, from the first on.

    Raises:
        ValueError: if the schedule is unknown, its arguments do not fit, or a factor is negative or not finite.

    >>> factors({"name": "step", "stages": [(1, 1), (0.1, 1)]}, 3)
    [1.0, 0.1, 0.1]
    """
    arguments = {"name": schedule or "constant"} if not isinstance(schedule, Mapping) else dict(schedule)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in SCHEDULES:
        msg = f"the schedule {schedule!r} is unknown; expected one of {', '.join(SCHEDULES)}, or a dict with that name"
        raise ValueError(msg)
    try:
        values = [SCHEDULES[name](epoch, epochs, **arguments) for epoch in range(epochs)]
    except (TypeError, ValueError, IndexError) as error:
        msg = (
            f"the schedule {schedule!r} does not fit {name} ({error}); "
            'step expects {"name": "step", "stages": [(factor, epochs), ...]}, the others no arguments'
        )
        raise ValueError(msg) from error
    if not all(math.isfinite(value) and value >= 0 for value in values):
        msg = f"the schedule {schedule!r} gives the factors {values[:5]} ...; expected finite ones, at least 0"
        raise ValueError(msg)
    return values
