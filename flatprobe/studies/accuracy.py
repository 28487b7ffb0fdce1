"""Warnings of an accuracy that says that a network is not measured as it was trained."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flatprobe.data import LabelledData, parts_of
from flatprobe.data.inputs import few_rows
from flatprobe.models import Normalise, Normalised
from flatprobe.probes.per_sample import map_samples
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.risk.samples import per_sample
from flatprobe.studies.doubts import AS_THEY_ARE, OWN, Doubt, Numbers, Scale, percent

# Our choices. Networks that were trained on inputs as they are had no pair with fewer errors and at most half the loss.
SAMPLES = 2000  # that are classified
LARGE = 64 * 64 * 3  # numbers in a sample, beyond which a quarter of them are, since a pass takes minutes
SCALE_LEVEL = 0.01  # probability of a warning of another normalization, if none is better
LOSS_FACTOR = 5.0  # of the losses, where the errors are too few for a test
LEVEL = 1e-3  # probability that a network that guesses is taken for one that does not
_ORDERED = 0.8  # accuracy under another order of the classes that is no chance for more than two classes
_FEWEST = 20  # samples with which guessing can be told from knowing
_BELOW = 0.05  # of the accuracy in the history, which may be of a validated epoch

# The pairs that are customary for images in [0, 1], by number of channels.
_CUSTOMARY: dict[int, tuple[tuple[str, Numbers, Numbers], ...]] = {
    1: (
        ("the usual pair of MNIST", (0.1307,), (0.3081,)),
        ("inputs from -1 to 1", (0.5,), (0.5,)),
        ("the usual pair of Fashion-MNIST", (0.2860,), (0.3530,)),
    ),
    3: (
        ("the usual pair of ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("inputs from -1 to 1", (0.5,), (0.5,)),
        ("the usual pair of CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("a usual pair of CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ),
}


def is_normalised(network: nn.Module) -> bool:
    """True if a network has a layer that normalizes its inputs by given numbers."""
    return any(isinstance(layer, Normalise) for layer in network.modules())


def accuracy_warnings(network: nn.Module, data: LabelledData, *, claimed: float | None = None) -> tuple[str, ...]:
    """The sentences of `accuracy_doubts`."""
    return tuple(doubt.sentence for doubt in accuracy_doubts(network, data, claimed=claimed))


def accuracy_doubts(network: nn.Module, data: LabelledData, *, claimed: float | None = None) -> tuple[Doubt, ...]:
    """Doubts on an accuracy that is likely not the one of the network as it was trained.

    Up to 2,000 samples spread over the data are classified, or 500 of more than 64 x 64 x 3 numbers each. There is a
    warning if

    - another customary normalization of the inputs makes fewer errors, and clearly so: at most half as many, with a
      p-value below 0.01 / (number of normalizations) of a sign test over the samples whose correctness changes, or
      with at most a fifth of the mean cross-entropy;
    - the accuracy is not above that of always guessing the largest class, by a binomial test at 0.001; another order
      of the classes is named where it would make the accuracy high;
    - the accuracy is more than 0.05 below the claimed one, which no chance explains.

    Cost: 1 forward pass over the samples; if any is misclassified, up to 7 more.

    Args:
        network: a classifier in eval mode.
        data: the data; without classes there is no warning.
        claimed: accuracy on the same data at the end of the training, if known.

    Returns:
        The doubts, with their sentences.

    Raises:
        ValueError: if the network cannot be run on the data.
    """
    if data.classes is None:  # a regression has no accuracy
        return ()
    size = sum(part.numel() for part in parts_of(data.store.first).values())
    most = SAMPLES if size <= LARGE else SAMPLES // 4
    part = data if len(data) <= most else data.subset(few_rows(len(data), most))
    risk = EmpiricalRisk(network, part)
    found = _Found(*per_sample(risk))
    doubts = []
    if better := _better_scales(network, part, found):
        doubts.append(Doubt(found.accuracy, better=better))
    elif (share := _guessing(part.labels, found.correct)) is not None:
        trained = claimed is not None and not _is_below(found.correct, claimed)
        reason = "; the history in its folder says the same" if trained else _permuted(network, part)
        counts = f" by {risk.network.classes} outputs for {data.classes} classes"
        other = "" if risk.network.classes == data.classes else counts
        doubts.append(
            Doubt(
                found.accuracy,
                f"{other}, hardly better than guessing the largest class ({percent(share)} of {len(part)} samples)"
                f"{reason}",
            )
        )
    if claimed is not None and _is_below(found.correct, claimed):
        words = f", and {percent(claimed)} at the end of its training (by the history in its folder)"
        doubts.append(Doubt(found.accuracy, words))
    return tuple(doubts)


class _Found(NamedTuple):
    """Loss and correctness of samples."""

    losses: Tensor
    correct: Tensor

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    def is_clearly_better(self, other: "_Found", tried: int) -> bool:
        """True if there are fewer errors than another's, by the rules of `accuracy_warnings`."""
        gained = int((self.correct > other.correct).sum())
        lost = int((self.correct < other.correct).sum())
        if gained <= lost:
            return False
        halved = float((1 - self.correct).sum()) <= float((1 - other.correct).sum()) / 2
        significant = halved and _sign_test(gained, lost) <= SCALE_LEVEL / tried
        return significant or float(self.losses.mean()) <= float(other.losses.mean()) / LOSS_FACTOR


def _better_scales(network: nn.Module, data: LabelledData, found: _Found) -> dict[Scale, float]:
    """The normalizations with clearly higher accuracies, the best one first; none unless the best one is clear."""
    if bool(found.correct.all()):
        return {}
    inputs = next(iter(data.batches(len(data) if data.store.resident else 256))).inputs
    inner = network.get_submodule("network") if isinstance(network, Normalised) else network
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 2 or is_normalised(inner):
        return {}
    own = float(inputs.double().mean()), float(inputs.double().std())
    if own[1] == 0:
        return {}
    scales = [*_scales(inputs, wrapped=inner is not network)]
    tries = [_Found(*per_sample(EmpiricalRisk(Normalised(inner, scale.mean, scale.std), data))) for scale in scales]
    order = sorted(range(len(scales)), key=lambda k: (tries[k].accuracy, scales[k].closeness(own)), reverse=True)
    clear = {scales[k]: tries[k].accuracy for k in order if tries[k].is_clearly_better(found, len(scales))}
    return clear if scales[order[0]] in clear else {}


def _scales(inputs: Tensor, *, wrapped: bool) -> Iterator[Scale]:
    """Normalizations to try: the customary ones, that of the data, and division by 255 or multiplication."""
    channels, top = inputs.shape[1], float(inputs.max())
    unit = 255.0 if top > 2 and float(inputs.min()) >= 0 else 1.0
    for words, mean, std in _CUSTOMARY.get(channels, ()) if inputs.ndim == 4 else ():
        yield Scale(words, tuple(unit * value for value in mean), tuple(unit * value for value in std))
    if wrapped:
        yield Scale(AS_THEY_ARE, (0.0,), (1.0,))
    if inputs.ndim == 4:
        words = "inputs from 0 to 255" if unit == 1 else "inputs / 255"
        yield Scale(words, (0.0,), (1 / 255 if unit == 1 else unit,))
    over = [0, *range(2, inputs.ndim)]
    for words, axes in ((OWN, None), (f"{OWN} by channel", over)):
        own = (inputs.double().mean(axes), inputs.double().std(axes))
        if bool((own[1] > 0).all()) and (axes is None or channels > 1):
            yield Scale(words, *(tuple(values.reshape(-1).tolist()) for values in own))


def _sign_test(gained: int, lost: int) -> float:
    """Probability of at least so many gains if gains and losses are equally likely."""
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0


def _guessing(labels: Tensor, right: Tensor) -> float | None:
    """Share of the largest class, if the accuracy is not above it by a binomial test; None if it is."""
    from scipy import stats

    share, count, hits = float(labels.bincount().max()) / len(labels), len(labels), int(right.sum())
    if count < _FEWEST or share == 1 or hits / count > (1 + share) / 2:
        return None
    return share if stats.binomtest(hits, count, share, alternative="greater").pvalue > LEVEL else None


def _is_below(right: Tensor, claimed: float) -> bool:
    """True if the accuracy is more than 0.05 below the claimed one, and not by the choice of the samples."""
    from scipy import stats

    hits, least = int(right.sum()), max(0.0, claimed - _BELOW)
    return hits < least * len(right) and bool(
        stats.binomtest(hits, len(right), least, alternative="less").pvalue < LEVEL
    )


def _permuted(network: nn.Module, data: LabelledData) -> str:
    """The accuracy under the best order of the classes, if it is high; else general advice."""
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        predicted = map_samples(network, data, lambda own, batch: own(batch.inputs).argmax(1), None)[0].long()
    size = int(torch.cat([predicted, data.labels]).max()) + 1
    table = (data.labels * size + predicted).bincount(minlength=size**2).reshape(size, size).numpy()
    best = float(table[linear_sum_assignment(table, maximize=True)].sum() / len(data))
    if best > _ORDERED and size > 2:
        return f"; with the classes in another order it is {percent(best)}: number them as in the training"
    return "; check the scale of the inputs (--normalise), the order of the classes and the weights"
