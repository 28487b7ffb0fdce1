"""Labels of a training batch: one class per sample, or several with weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from flatprobe.attacks.points import log_odds
from flatprobe.functional.losses import cross_entropy


@dataclass(frozen=True)
class Mixture:
    """Several labels y_k per sample with weights c_k, for the loss sum_k c_k l(z, y_k).

    For the cross-entropy this is the loss on the mixed one-hot target; for the squared losses it is that loss up to a
    constant in z. The other losses have no mixed target.

    Attributes:
        parts: (weights (samples,), labels (samples,)) pairs; the weights of each sample sum to 1.
    """

    parts: tuple[tuple[Float[Tensor, " samples"], Int64[Tensor, " samples"]], ...]


Labels = Tensor | Mixture


def check_labels(labels: object, samples: int, whose: str) -> None:
    """Check that the labels are one integer per sample, in a mixture with one weight each.

    The labels are not compared with the number of classes, for which the host would wait for the device.

    Args:
        labels: labels or a mixture.
        samples: number of samples.
        whose: their owner, for the message.

    Raises:
        ValueError: for other labels or weights.
    """
    for part in (part for _, part in labels.parts) if isinstance(labels, Mixture) else (labels,):
        if not isinstance(part, Tensor):
            found = f"a {type(part).__name__}"
        elif part.dtype != torch.int64 or part.shape != (samples,):
            found = f"{part.dtype} of shape {tuple(part.shape)}"
        else:
            continue
        msg = (
            f"the labels of {whose} are {found} for {samples} samples; expected one integer per sample (torch.int64), "
            f"of shape ({samples},), or a Mixture of such"
        )
        raise ValueError(msg)
    for weights in (weights for weights, _ in labels.parts) if isinstance(labels, Mixture) else ():
        if weights.shape != (samples,):
            msg = f"the mixture of {whose} has weights of shape {tuple(weights.shape)}; expected ({samples},)"
            raise ValueError(msg)


def check_derivable(inputs: Iterable[Tensor]) -> None:
    """Check that a pass over these inputs can be differentiated.

    Raises:
        ValueError: inside torch.inference_mode, and for tensors made in it.
    """
    if torch.is_inference_mode_enabled():
        msg = "the pass is inside torch.inference_mode, where nothing can be differentiated; expected it outside"
        raise ValueError(msg)
    if any(part.is_inference() for part in inputs):
        msg = (
            "the inputs were made inside torch.inference_mode, so they can take no gradient; expected tensors made "
            "outside of it: pass inputs.clone()"
        )
        raise ValueError(msg)


def sample_losses(
    kernel: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Labels
) -> Float[Tensor, " samples"]:
    """The loss per sample."""
    if isinstance(labels, Mixture):
        terms = [weights.to(logits) * kernel(logits, part) for weights, part in labels.parts]
        return sum(terms[1:], terms[0])
    return kernel(logits, labels)


def mean_loss(
    kernel: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Int64[Tensor, " samples"]
) -> Float[Tensor, ""]:
    """The mean loss over a batch whose labels are classes.

    Torch averages the cross-entropy in its own kernel. The gradient has the same bits as that of the mean of the
    losses.
    """
    return F.cross_entropy(logits, labels) if _is_cross_entropy(kernel) else kernel(logits, labels).mean()


def ascent_losses(
    kernel: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Labels
) -> Float[Tensor, " samples"]:
    """The loss per sample in a form whose input gradient keeps its direction.

    The cross-entropy is computed as log(1 + exp(log odds)). The usual gradient in the logits, p - e_y, loses its entry
    y, and so its direction, where p_y rounds to 1 (in float32 from a margin of about 17 on).
    """
    return sample_losses(_by_log_odds if _is_cross_entropy(kernel) else kernel, logits, labels)


def steering_losses(
    kernel: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Labels
) -> Float[Tensor, " samples"]:
    """A value per sample whose input gradient is a positive multiple of the loss gradient.

    The gradient of the cross-entropy is sigmoid(log odds) times that of the log odds, and underflows where the network
    is certain (in float32 beyond a margin of about 100). This factor is left out; of a mixture, the largest factor.
    """
    if not _is_cross_entropy(kernel):
        return sample_losses(kernel, logits, labels)
    if not isinstance(labels, Mixture):
        return log_odds(logits, labels)
    entries = [(weights, log_odds(logits, part)) for weights, part in labels.parts]
    scales = torch.stack([F.logsigmoid(odds) for _, odds in entries]).detach()
    factors = (scales - scales.amax(0)).exp()
    terms = [weights.to(logits) * factor * odds for (weights, odds), factor in zip(entries, factors, strict=True)]
    total: Tensor = sum(terms[1:], terms[0])
    return total


def _is_cross_entropy(kernel: Callable[[Tensor, Tensor], Tensor]) -> bool:
    return getattr(kernel, "func", kernel) is cross_entropy


def _by_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    odds = log_odds(logits, labels)
    return torch.logaddexp(odds, torch.zeros_like(odds))


def weighted_labels(labels: Labels, like: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """The (weights, labels) pairs of a mixture; single labels have weight 1."""
    return labels.parts if isinstance(labels, Mixture) else ((like.new_ones(len(labels)), labels),)
