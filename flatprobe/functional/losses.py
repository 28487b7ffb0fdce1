"""Losses, margins and scores per sample, the same in probes and training."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from flatprobe.functional.user_loss import Loss, UserLoss, as_loss
from flatprobe.utils.arguments import chosen, positive

Logits = Float[Tensor, "samples classes"]
Labels = Int64[Tensor, " samples"]
Values = Float[Tensor, " samples"]


def cross_entropy(logits: Logits, labels: Labels) -> Values:
    """log sum_j exp(z_j) - z_y, in nats."""
    return F.cross_entropy(logits, labels, reduction="none")


def squared(logits: Logits, labels: Labels) -> Values:
    """sum_j (z_j - 1[j = y])^2, a sum over classes, not a mean."""
    return (logits - F.one_hot(labels, logits.shape[1]).to(logits)).square().sum(1)


def squared_signs(logits: Logits, labels: Labels) -> Values:
    """sum_j (z_j - t_j)^2 with the targets t_j = 1 where j = y, else -1."""
    return (logits + 1 - 2 * F.one_hot(labels, logits.shape[1]).to(logits)).square().sum(1)


def hinge(logits: Logits, labels: Labels) -> Values:
    """max(0, 1 + max_{j != y} z_j - z_y)."""
    return (1 - functional_margin(logits, labels)).clamp_min(0)


def maximum(logits: Logits, labels: Labels) -> Values:
    """max_j z_j - z_y (O20 eq. 2.5), which is no upper bound of the 0-1 loss at ties.

    Tied logits share the subgradient equally.
    """
    return logits.amax(1) - logits.gather(1, labels[:, None]).squeeze(1)


def smoothed_maximum(logits: Logits, labels: Labels, *, epsilon: float) -> Values:
    """epsilon log sum_j exp(z_j / epsilon) - z_y (O20 eqs 7.1, 7.2).

    It is between `maximum` and `maximum` + epsilon log C, and is the cross-entropy at epsilon = 1. It is computed as
    epsilon l(z / epsilon) with the cross-entropy l, which does not cancel where the network is certain.
    """
    return epsilon * cross_entropy(logits / epsilon, labels)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "squared": squared,
    "squared_signs": squared_signs,
    "hinge": hinge,
    "maximum": maximum,
    "smoothed_maximum": smoothed_maximum,
}


def per_sample_loss(
    loss: Loss | Any, others: Mapping[str, Callable[..., Tensor]] | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """A named or user-defined loss as a function (logits, labels) -> (samples,).

    Args:
        loss: a name, a name with its arguments, `{"name": "smoothed_maximum", "epsilon": 0.2}`, or a function or module
            as in `flatprobe.functional.user_loss.UserLoss`.
        others: named losses beside those of classifiers, such as `flatprobe.functional.task_losses.TASK_LOSSES`.

    Returns:
        The function; a user-defined one is differentiable if its function is.

    Raises:
        TypeError: for anything but a name or a function.
        ValueError: for an unknown name, or arguments that do not fit.
    """
    loss, options = as_loss(loss), {**LOSSES, **(others or {})}
    if isinstance(loss, UserLoss):
        return loss
    if not isinstance(loss, str | Mapping):
        what = f"the class {loss.__name__}" if isinstance(loss, type) else f"{loss!r}"
        fix = f". Pass an object of it, {loss.__name__}()" if isinstance(loss, type) else ""
        msg = (
            f"the loss is {what}; expected one of {', '.join(map(repr, options))}, or a function (logits, labels) -> "
            f"(samples,) such as torch.nn.CrossEntropyLoss(label_smoothing=0.1){fix}"
        )
        raise TypeError(msg)
    function, arguments = chosen("loss", loss, options)
    if function in LOSSES.values():
        positive(**arguments)
    return partial(function, **arguments)


def misclassified(logits: Logits, labels: Labels) -> Bool[Tensor, " samples"]:
    """1[argmax_j z_j != y]."""
    return logits.argmax(1) != labels


def functional_margin(outputs: Logits, labels: Labels) -> Values:
    """z_y - max_{j != y} z_j: negative where misclassified (T3 section 5.3, Fig. 17).

    >>> functional_margin(torch.tensor([[3.0, 1.0, 2.5]]), torch.tensor([0]))
    tensor([0.5000])
    """
    own = outputs.gather(1, labels[:, None]).squeeze(1)
    others = outputs.scatter(1, labels[:, None], -torch.inf)
    return own - others.amax(1)


def score(outputs: Logits, labels: Labels) -> Values:
    """sqrt(2) min_{j != y} (f_y - f_j) (S17 eq. 33)."""
    return 2**0.5 * functional_margin(outputs, labels)


def softmax_jacobian(logits: Logits) -> Float[Tensor, "samples classes classes"]:
    """dp/dz = diag(p) - p p^T in float64.

    The diagonal p_k (1 - p_k) is p_k times the sum of the other probabilities: 1 - p_k would lose all digits where the
    network is certain.
    """
    p = logits.double().softmax(1)
    others = 1 - torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    diagonal = p * (p @ others)
    return torch.diag_embed(diagonal) - p[:, :, None] * p[:, None, :] * others


def softmax_product(logits: Logits, vectors: Logits) -> Logits:
    """(dp/dz) u = p * (u - <p, u>), in the type of the logits.

    The entry of u at the likeliest class is subtracted first, so that nothing cancels where the network is certain.
    """
    p = logits.softmax(1)
    relative = vectors - vectors.gather(1, logits.detach().argmax(1, keepdim=True))
    return p * (relative - (p * relative).sum(1, keepdim=True))


def hessian_root_product(logits: Logits, vectors: Logits) -> Logits:
    """L u with L = diag(sqrt p) - p sqrt(p)^T, so that L L^T = diag(p) - p p^T.

    sqrt(p) is exp(log p / 2), whose derivative is finite where p vanishes. The columns of L sum to 0, so the entry at
    the likeliest class is minus the sum of the others; formed directly, it would cancel where the network is certain.
    """
    log_p = logits.log_softmax(1)
    roots = (log_p / 2).exp()
    product = roots * vectors - log_p.exp() * (roots * vectors).sum(1, keepdim=True)
    top = logits.detach().argmax(1, keepdim=True)
    others = product.scatter(1, top, 0.0)
    return others.scatter(1, top, -others.sum(1, keepdim=True))


def softmax_temperature(loss: Loss | Any) -> float | None:
    """Temperature epsilon of a loss with the Hessian (diag(p) - p p^T) / epsilon.

    None for the squared losses, whose Hessian in the logits is 2 I.

    Args:
        loss: as in `per_sample_loss`.

    Raises:
        ValueError: for a loss that is piecewise linear in the logits, or user-defined.
    """
    loss = as_loss(loss)
    if isinstance(loss, UserLoss):
        msg = (
            f"the Hessian of the user-defined loss {loss.name} in the logits is not known; expected one of "
            "cross_entropy, smoothed_maximum, squared or squared_signs"
        )
        raise ValueError(msg)
    function, arguments = chosen("loss", loss, LOSSES)
    if function is cross_entropy:
        return 1.0
    if function is smoothed_maximum:
        return float(arguments["epsilon"])
    if function in {squared, squared_signs}:
        return None
    name = loss if isinstance(loss, str) else loss["name"]
    msg = (
        f"the loss {name!r} is piecewise linear in the logits, so its Hessian is 0; expected a loss with a curvature: "
        "cross_entropy, smoothed_maximum, squared or squared_signs"
    )
    raise ValueError(msg)
