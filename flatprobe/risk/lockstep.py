"""The risk at several points at once, by one forward pass of stacked weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from flatprobe.data.inputs import Inputs, few_rows, tensors
from flatprobe.functional.losses import misclassified
from flatprobe.functional.outputs import at_least_single
from flatprobe.network.batch_sizes import bytes_per_sample
from flatprobe.network.network import Network
from flatprobe.network.weights import Weights, combine
from flatprobe.risk.empirical import EmpiricalRisk, Risk, RiskFunction, along
from flatprobe.risk.function import risk_at

# Multiply-adds per batch below which a GPU waits for the calls of a dense network's pass. This is an estimate, not
# measured: a GPU takes about 0.02 ms for them, the host 0.1 ms for the calls. On one thread of a CPU, lockstep takes
# 0.7 of the time of `along` for a network 64-32-10, 1.4 for 64-512-10 and 2.2 for 784-512-10, and a radius needs more
# evaluations in lockstep: there it is not used. Stacked convolutions take 5.4 there, and are not stacked anywhere.
_SMALL = 2**28

# Bytes of the weights and activations of all points of one pass.
_BYTES = 2**28

_CLOSE = 1e-2  # of the largest logit; in float32 stacked and single networks differ by about 1e-6 of it

_AT_ONCE: "WeakKeyDictionary[Network, int]" = WeakKeyDictionary()


def risks_at(risk: RiskFunction, points: Iterable[Mapping[str, Tensor]]) -> list[Risk]:
    """Risks at several weights, as one call per point returns them up to rounding.

    `points_at_once` points share a forward pass, by `torch.vmap` over their stacked weights. The host waits for the
    device once, after all points.

    Args:
        risk: any other than an `EmpiricalRisk` is called at one point at a time.
        points: weights or buffers by name, read as they are used.

    Returns:
        One risk per point.
    """
    size = points_at_once(risk)
    if size == 1 or not isinstance(risk, EmpiricalRisk):
        return [risk_at(risk, point) for point in points]
    points, sums = iter(points), []
    while group := list(islice(points, size)):
        sums.append(_sums(risk, group))
    pairs = torch.cat(sums, 1).T.tolist() if sums else []
    return [Risk(loss=loss / len(risk.data), error=error / len(risk.data)) for loss, error in pairs]


def risks_along(
    risk: RiskFunction,
    vectors: Sequence[Mapping[str, Tensor]],
    rows: Iterable[Sequence[float]],
    at: Callable[[Sequence[float]], Risk] | None = None,
) -> list[Risk]:
    """Risks at sum_k c_k v_k for rows c of coefficients, by `risks_at` where it pays, else by `along`.

    Args:
        risk: the risk.
        vectors: weights or directions.
        rows: one coefficient per vector.
        at: `along(risk, vectors)`, if it is at hand.
    """
    if points_at_once(risk) > 1:
        return risks_at(risk, (combine(vectors, row) for row in rows))
    return list(map(at or along(risk, vectors), rows))


def points_at_once(risk: RiskFunction) -> int:
    """Number of points that one pass evaluates; 1 where stacked weights do not pay, or a network cannot take them.

    The number does not depend on timing. A network that leaves traces of a pass or draws random numbers runs at one
    point at a time. Others are compared with their own passes on a few samples, once.
    """
    if not isinstance(risk, EmpiricalRisk) or not _of_logits(risk):
        return 1
    network, size = risk.network, min(risk.batch_size, len(risk.data))
    if not pays(network, size):
        return 1
    if network not in _AT_ONCE:
        each = 3 * sum(value.nbytes for value in network.weights.values()) + size * bytes_per_sample(network, risk.data)
        inputs = network.prepare(risk.data.gather(few_rows(len(risk.data)))[0])
        _AT_ONCE[network] = max(1, _BYTES // each) if _stacks(network, inputs) else 1
    return _AT_ONCE[network]


def _of_logits(risk: EmpiricalRisk) -> bool:
    """True if the risk is a function of logits (samples, classes), and its error that of their classes."""
    user = risk.task.user
    own = user is not None and user.error is None and risk.data.classes is not None and risk.network.classes > 1
    return risk.task.classifier or own


def pays(network: Network, batch_size: int) -> bool:
    """True if the calls of a pass, not its arithmetic, take the time: a small dense network off the CPU."""
    parameters = sum(value.numel() for value in network.weights.values())
    return network.device.type != "cpu" and network.architecture == "dense" and parameters * batch_size < _SMALL


def stacked_logits(
    network: Network, state: Weights, inputs: Inputs, axis: int | None = None
) -> Float[Tensor, "points samples classes"]:
    """Logits at stacked weights (points, ...); `axis` is the inputs' axis of the points, None for common inputs."""
    try:
        result: Tensor = torch.vmap(lambda own, batch: network(batch, own), (0, axis))(state, inputs)
    finally:
        network.rest()
    return result


def agree(found: Tensor, expected: Tensor) -> bool:
    """True if stacked logits are those of a single network, up to rounding."""
    found, expected = found.double(), expected.double()
    scale = float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return torch.allclose(found, expected, rtol=_CLOSE, atol=_CLOSE * scale, equal_nan=True)


def sums_of(
    per_sample: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor
) -> Float64[Tensor, "quantities points"]:
    """Sums over the samples of the loss and of the misclassified, for logits (points, samples, classes).

    As in `EmpiricalRisk`, the second is NaN if a logit is not finite.
    """
    flat, all_labels = at_least_single(logits.flatten(0, 1)), labels.flatten()
    wrong = misclassified(flat, all_labels).view_as(labels).sum(1)
    loss = per_sample(flat, all_labels).view_as(labels).sum(1, dtype=torch.float64)
    return torch.stack((loss, wrong + 0 * logits.sum((1, 2), dtype=torch.float64)))


@torch.no_grad()
def _sums(risk: EmpiricalRisk, points: Sequence[Mapping[str, Tensor]]) -> Tensor:
    own = {**risk.center, **risk.buffers}
    for point in points:
        risk._check_names(point)  # noqa: SLF001 - the risk's own evaluation, at several points
    names = dict.fromkeys(name for point in points for name in point)
    state = {name: torch.stack([point.get(name, own[name]) for point in points]) for name in names}
    total = torch.zeros(2, len(points), dtype=torch.float64, device=risk.network.device)
    for inputs, labels in risk._batches():  # noqa: SLF001
        logits = stacked_logits(risk.network, state, inputs)
        total += sums_of(risk.task.per_sample, logits, labels.expand(len(points), -1))
    return total


@torch.no_grad()
def _stacks(network: Network, inputs: Inputs) -> bool:
    """True if a pass at two stacked points is their passes, on a few samples."""
    if network.slots.leaves_traces or network.seeds or network.remembered or len(tensors(inputs)[0]) == 0:
        return False
    center = {
        name: value for name, value in {**network.weights, **network.buffers}.items() if value.is_floating_point()
    }
    points = [center, combine([center], [0.9])]
    try:
        together = stacked_logits(network, {name: torch.stack([p[name] for p in points]) for name in points[0]}, inputs)
        return all(agree(logits, network(inputs, point)) for logits, point in zip(together, points, strict=True))
    except Exception:  # noqa: BLE001 - Whatever a network of the user raises at stacked weights, it runs one by one.
        return False
