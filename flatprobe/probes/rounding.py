"""Radii against rounding: that of the moved weights, and where epsilon is small that of the loss, seen in float64."""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from flatprobe.network.weights import Weights, linear_combination, norm, pieces
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction, along
from flatprobe.risk.recalibration import Recalibration
from flatprobe.utils.first_exit import Exit

# A mean loss is off by less than a rounding unit of the largest logit (on MLPs by about a tenth of one). An epsilon a
# thousand times that is safe.
_SAFE = 1000.0
# Samples whose logits are looked at for the largest.
_SAMPLES = 64


def float64_risk(risk: RiskFunction, epsilon: float, *, recalibrated: bool) -> RiskFunction | None:
    """The risk in float64, where the rounding of its loss could be seen beside epsilon; else None.

    Args:
        risk: of any other than an `EmpiricalRisk` nothing is known, and nothing is looked at.
        epsilon: the increase that is to be resolved.
        recalibrated: whether BatchNorm statistics are gathered anew at each point.

    Raises:
        ValueError: for a network in float64, beyond which there is no precision to look with.
    """
    if not isinstance(risk, EmpiricalRisk):
        return None
    network = risk.network
    # Half precision's losses are in float32.
    unit = min(torch.finfo(network.dtype).eps, torch.finfo(torch.float32).eps)
    head = risk.data.head(min(_SAMPLES, len(risk.data)))
    with torch.no_grad():
        logits = [network(network.prepare(batch.inputs)).abs().max() for batch in head.batches(risk.batch_size)]
    safe = _SAFE * unit * max(1.0, *map(float, logits))
    if epsilon >= safe:
        return None
    if network.dtype == torch.float64:
        msg = (
            f"epsilon is {epsilon:g}, which the rounding of the loss in float64 would decide; expected at least "
            f"{safe:.2g} for logits as large as this network's"
        )
        raise ValueError(msg)
    exact = copy.copy(risk)
    exact.network = network.copy(dtype=torch.float64)
    return Recalibration(exact) if recalibrated else exact


def check_loss(exact: RiskFunction, exit_: Exit, u: Mapping[str, Tensor], epsilon: float, rtol: float) -> None:
    """The exit, widened by rtol on either side, is one in float64 too.

    Raises:
        ValueError: if it is not.
    """
    at = along(exact, [exact.center, {name: value.double() for name, value in u.items()}])
    base = exact(exact.center).loss
    near, far = exit_.lower * (1 - rtol), exit_.upper * (1 + rtol)
    inside, outside = (abs(at((1.0, radius)).loss - base) for radius in (near, far))
    if not inside <= epsilon < outside:
        msg = (
            f"epsilon is {epsilon:g}, and the rounding of the loss decides the radius {exit_.radius:.4g}: in float64 "
            f"the loss changes by {inside:.3g} at {near:.4g} and by {outside:.3g} at {far:.4g}; expected it to pass "
            "epsilon in between: probe in float64, model.double(), or with a larger epsilon"
        )
        raise ValueError(msg)


def check_weights(vectors: list[Weights], radius: float, rtol: float) -> None:
    """The weights at the radius are those on the direction, but for rounding that does not change the radius.

    The rounding of the moved weights is a displacement of its own, all but orthogonal to the direction; its share of
    the increase is of the order of the squared ratio of their lengths: that is held below rtol.

    Raises:
        ValueError: where it is more: each step is lost, or drowned, in the weights' rounding.
    """
    if not math.isfinite(radius):
        return
    center, u = vectors
    rounding = math.sqrt(sum(_rounding(center[name], value, radius) for name, value in u.items()))
    distance = radius * norm(u)
    if rounding > rtol**0.5 * distance:
        dtypes = ", ".join(dict.fromkeys(str(center[name].dtype).removeprefix("torch.") for name in u))
        msg = (
            f"at the radius {radius:.3g} the weights move by {distance:.3g}, of which {rounding:.3g} is rounding in "
            f"{dtypes}; expected at most sqrt(rtol) of it: probe in a higher precision, model.float() or "
            "model.double(), or with a larger epsilon"
        )
        raise ValueError(msg)


def _rounding(weights: Tensor, u: Tensor, radius: float) -> float:
    """||(w + r u as it is rounded) - w - r u||^2."""
    total = 0.0
    for w, own in pieces(weights, u):
        moved = linear_combination([w, own], (1.0, radius)).double()
        total += float(moved.sub_(w).sub_(radius * own.double()).square().sum())
    return total
