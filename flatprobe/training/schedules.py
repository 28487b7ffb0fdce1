"""Learning rate schedules: pure functions of epoch and step, whose values multiply the learning rate."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flatprobe.utils.arguments import Named, Number, given, is_number, positive

Schedule = Named | None


def constant(epoch: int, epochs: int, step: int) -> float:  # noqa: ARG001 - all schedules have one signature
    """1 in every epoch."""
    return 1.0


def stepped(epoch: int, epochs: int, step: int, stages: Sequence[Sequence[float]]) -> float:  # noqa: ARG001
    """Piecewise constant: each stage is (factor, its number of epochs); the last stage continues to the end.

    Sokolić et al. (2017), section VI-C2 at learning rate 0.1 [S17]: `stages=[(1, 30), (0.1, 30), (0.01, 30)]`.

    >>> [stepped(epoch, 5, 0, [(1.0, 2), (0.5, 1)]) for epoch in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.5]

    Raises:
        ValueError: for a stage whose length is not a whole number of at least 1.
    """
    for _, length in stages:
        if length < 1 or length % 1:
            msg = f"a stage of {length} epochs; expected a whole number, at least 1"
            raise ValueError(msg)
    for factor, length in stages:
        if epoch < length:
            return float(factor)
        epoch -= int(length)
    return float(stages[-1][0])


def cosine(epoch: int, epochs: int, step: int) -> float:  # noqa: ARG001
    """(1 + cos(pi epoch / epochs)) / 2: from 1 in the first epoch to nearly 0 in the last.

    >>> [round(cosine(epoch, 4, 0), 3) for epoch in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


def inverse(epoch: int, epochs: int, step: int, decay: float) -> float:  # noqa: ARG001
    """1 / (1 + c k) in step k of the whole training, counted from 0, with c the decay (Oberman 2020, eq. SLR).

    Raises:
        ValueError: for a decay that is negative or not finite.

    >>> [inverse(0, 1, step, 0.5) for step in range(3)]
    [1.0, 0.6666666666666666, 0.5]
    """
    if not 0 <= decay < math.inf:
        msg = f"a decay of {decay}; expected a finite number, at least 0"
        raise ValueError(msg)
    return 1 / (1 + float(decay) * step)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "step": stepped,
    "cosine": cosine,
    "inverse": inverse,
}


def factor(schedule: Schedule, epoch: int, epochs: int, step: int) -> float:
    """The factor on the learning rate in one step.

    Args:
        schedule: None (constant); a name; or a name with its arguments, as in
            `{"name": "step", "stages": [(1, 30), (0.1, 30)]}`.
        epoch: counted from 0.
        epochs: the number of epochs in the whole training.
        step: counted from 0 at the beginning of the training.

    Returns:
        A finite number, at least 0.

    Raises:
        ValueError: if the schedule is unknown, its arguments do not fit, or the factor is negative or not finite.

    >>> [factor({"name": "step", "stages": [(1, 1), (0.1, 1)]}, epoch, 3, 0) for epoch in range(3)]
    [1.0, 0.1, 0.1]
    """
    if schedule is None:
        return 1.0
    arguments = {"name": schedule} if not isinstance(schedule, Mapping) else dict(schedule)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in SCHEDULES:
        msg = f"the schedule {schedule!r} is unknown; expected one of {', '.join(SCHEDULES)}, or a dict with that name"
        raise ValueError(msg)
    try:
        value = SCHEDULES[name](epoch, epochs, step, **arguments)
    except (TypeError, ValueError, IndexError) as error:
        msg = (
            f"the schedule {schedule!r} does not fit {name} ({error}); "
            'step expects {"name": "step", "stages": [(factor, epochs), ...]}, inverse {"name": "inverse", '
            '"decay": ...}, the others no arguments'
        )
        raise ValueError(msg) from error
    if not (math.isfinite(value) and value >= 0):
        msg = f"the schedule {schedule!r} gives the factor {value} in epoch {epoch}; expected finite ones, at least 0"
        raise ValueError(msg)
    return value


def check_schedule(schedule: Schedule, epochs: int) -> None:
    """Check the schedule's factor in every epoch.

    Raises:
        ValueError: as in `factor`.
    """
    for epoch in range(epochs):
        factor(schedule, epoch, epochs, 0)


def inverse_rate(*, convexity: Number, smoothness: Number, variance: Number, distance: Number) -> dict[str, Any]:
    """h_k = 1 / (mu (k + 1 / (q_0 alpha))), alpha = mu^2 / (sigma^2 + mu L q_0): O20's rate for plain SGD.

    With this rate `E[q_k] <= 1 / (alpha k + 1 / q_0)` for q_k = ``||w_k - w*||^2``. The result is for
    `train(network, data, **inverse_rate(...))`: the learning rate h_0 = mu q_0 / (sigma^2 + mu L q_0), and the schedule
    `inverse` with the decay mu h_0, since h_k = h_0 / (1 + mu h_0 k).

    Args:
        convexity: mu, the risk's strong convexity: the least eigenvalue of its Hessian.
        smoothness: L, the largest eigenvalue; at least mu.
        variance: sigma^2 = E ||e||^2 of the minibatch gradient's error e; 0 for the full gradient.
        distance: q_0, the squared distance of the initial weights from the minimizer.

    Returns:
        The arguments `learning_rate`, `schedule` and `momentum` (0) of `train`.

    Raises:
        ValueError: for constants that are not positive and finite (the variance may be 0), or L below mu.

    Source: Oberman (2020), Theorem 5.2 and eq. SLR, with a corrected constant (docs, Definitions) [O20].

    >>> inverse_rate(convexity=1.0, smoothness=1.0, variance=3.0, distance=1.0)
    {'learning_rate': 0.25, 'schedule': {'name': 'inverse', 'decay': 0.25}, 'momentum': 0.0}
    """
    given(convexity=convexity, smoothness=smoothness, distance=distance)
    positive(convexity=convexity, smoothness=smoothness, distance=distance)
    if smoothness < convexity or not is_number(variance) or not 0 <= variance < math.inf:
        msg = (
            f"smoothness is {smoothness}, convexity {convexity} and variance {variance}; expected a smoothness of at "
            "least the convexity, and a finite variance of at least 0"
        )
        raise ValueError(msg)
    first = convexity * distance / (variance + convexity * smoothness * distance)
    return {"learning_rate": first, "schedule": {"name": "inverse", "decay": convexity * first}, "momentum": 0.0}
