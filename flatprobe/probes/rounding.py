"""Checks of radii against rounding: of the moved weights, and for a small epsilon of the loss."""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from flatprobe.network.weights import Weights, linear_combination, norm, pieces
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction, along
from flatprobe.risk.recalibration import Recalibration
from flatprobe.utils.first_exit import Exit

# The rounding error of a mean loss is below a rounding unit of the largest logit, about a tenth of one on MLPs. An
# epsilon of a thousand units is safe.
_SAFE = 1000.0
# Samples from which the largest logit is taken.
_SAMPLES = 64


def float64_risk(risk: RiskFunction, epsilon: float, *, recalibrated: bool) -> RiskFunction | None:
    """The risk in float64 where the rounding of its loss matters at this epsilon, else None.

    Args:
        risk: any other than an `EmpiricalRisk` is not checked.
        epsilon: the increase to resolve.
        recalibrated: True where BatchNorm statistics are estimated anew at each point.

    Raises:
        ValueError: for a network in float64, since no higher precision is available.
    """
    if not isinstance(risk, EmpiricalRisk):
        return None
    network = risk.network
    # Losses of half-precision networks are in float32.
    unit = min(torch.finfo(network.dtype).eps, torch.finfo(torch.float32).eps)
    head = risk.data.head(min(_SAMPLES, len(risk.data)))
    with torch.no_grad():
        logits = [network(network.prepare(batch.inputs)).abs().max() for batch in head.batches(risk.batch_size)]
    safe = _SAFE * unit * max(1.0, *map(float, logits))
    if epsilon >= safe:
        return None
    if network.dtype == torch.float64:
        msg = (
            f"epsilon must be at least {safe:.2g} for logits as large as this network's, got {epsilon:g}. Below that, "
            "the rounding of the loss in float64 decides"
        )
        raise ValueError(msg)
    exact = copy.copy(risk)
    exact.network = network.copy(dtype=torch.float64)
    return Recalibration(exact) if recalibrated else exact


def check_loss(exact: RiskFunction, exit_: Exit, u: Mapping[str, Tensor], epsilon: float, rtol: float) -> None:
    """Check that the exit, widened by rtol on either side, is an exit in float64.

    Raises:
        ValueError: if it is not.
    """
    at = along(exact, [exact.center, {name: value.double() for name, value in u.items()}])
    base = exact(exact.center).loss
    near, far = exit_.lower * (1 - rtol), exit_.upper * (1 + rtol)
    inside, outside = (abs(at((1.0, radius)).loss - base) for radius in (near, far))
    if not inside <= epsilon < outside:
        msg = (
            f"the loss in float64 must pass epsilon = {epsilon:g} near the radius {exit_.radius:.4g}, got changes of "
            f"{inside:.3g} at {near:.4g} and {outside:.3g} at {far:.4g}. Rounding of the loss decides it: probe in "
            "float64, model.double(), or with a larger epsilon"
        )
        raise ValueError(msg)


def check_weights(vectors: list[Weights], radius: float, rtol: float) -> None:
    """Check that the rounding of the moved weights does not change the radius.

    The rounding is a displacement nearly orthogonal to the direction. Its share of the increase is of the order of the
    squared ratio of the two lengths, which must stay below rtol.

    Raises:
        ValueError: if the ratio is larger: the weights' rounding hides the step.
    """
    if not math.isfinite(radius):
        return
    center, u = vectors
    rounding = math.sqrt(sum(_rounding(center[name], value, radius) for name, value in u.items()))
    distance = radius * norm(u)
    if rounding > rtol**0.5 * distance:
        dtypes = ", ".join(dict.fromkeys(str(center[name].dtype).removeprefix("torch.") for name in u))
        msg = (
            f"at the radius {radius:.3g} rounding in {dtypes} must be at most sqrt(rtol) of the weights' move of "
            f"{distance:.3g}, got {rounding:.3g}. Probe in a higher precision, model.float() or model.double(), or "
            "with a larger epsilon"
        )
        raise ValueError(msg)


def _rounding(weights: Tensor, u: Tensor, radius: float) -> float:
    """||rounded(w + r u) - w - r u||^2."""
    total = 0.0
    for w, own in pieces(weights, u):
        moved = linear_combination([w, own], (1.0, radius)).double()
        total += float(moved.sub_(w).sub_(radius * own.double()).square().sum())
    return total
