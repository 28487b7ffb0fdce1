"""Task of a risk: the loss per sample, the error where there is one, and the outputs that both need."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from flatprobe.data import LabelledData, check_classes, check_data, parts_of
from flatprobe.data.inputs import Inputs
from flatprobe.data.storage import Memory
from flatprobe.data.targets import are_classes
from flatprobe.functional.losses import LOSSES, misclassified, per_sample_loss
from flatprobe.functional.outputs import at_least_single
from flatprobe.functional.task_losses import TASK_LOSSES
from flatprobe.functional.user_loss import UserLoss, as_loss, describe_loss
from flatprobe.network.checks import warn_of_probabilities
from flatprobe.network.network import Network
from flatprobe.network.outputs import Output, Reading, two_logits
from flatprobe.risk.function import Risk
from flatprobe.utils.memory import samples_within

# The dimension of the classes in the outputs, by named loss.
_CLASSES = {"pixel_cross_entropy": 1, "token_cross_entropy": 2}
_BYTES = 2**28  # Bytes of the outputs of a batch.


class Task:
    """The loss per sample of a risk, and its error.

    The error is the misclassified fraction where the targets are class indices, or the mean of the `error` of a
    user-defined loss. There is none for other targets.

    Args:
        loss: a name, a name with its arguments, or a function (outputs, targets) -> (samples,) or (samples, ...).
        data: the data of the risk.

    Attributes:
        data: the data, with class indices where the loss needs them.
        kernel: the function behind the loss.
        record: the loss as records hold it.
        checked: the number of samples of `check`.

    Raises:
        TypeError: for a loss that is neither a name nor a function, or data that are not `LabelledData`.
        ValueError: for an unknown loss, or targets that do not suit the loss.
    """

    def __init__(self, loss: Any, data: LabelledData) -> None:
        check_data(data)
        loss = as_loss(loss, classes=data.classes is not None)
        self.kernel, self.record = per_sample_loss(loss, TASK_LOSSES), describe_loss(loss)
        self.user = self.kernel if isinstance(self.kernel, UserLoss) else None
        own = getattr(self.kernel, "func", None)
        self.named = next((name for name, function in {**LOSSES, **TASK_LOSSES}.items() if function is own), None)
        self.classifier = self.named in LOSSES
        self.data = check_classes(data) if self.classifier else data
        # A user-defined loss is compared with itself in smaller batches.
        self.checked = 4 if self.user is None else 16
        self._chunked = self.named == "token_cross_entropy"

    def read(self, output: Output) -> Reading:
        """The reading of the outputs that the loss takes."""
        alone = self.named == "model"
        return Reading("loss" if alone and output is None else output, classifier=self.classifier, alone=alone)

    def check(self, network: Network, inputs: Inputs, targets: Tensor, batch_size: int, *, fixed: bool) -> int:
        """Check of a loss that is not one of classifiers, on a few samples.

        Args:
            network: the network.
            inputs: `checked` samples, or fewer.
            targets: theirs.
            batch_size: samples per pass.
            fixed: True if the user gave the batch size.

        Returns:
            The batch size, unless it is fixed at most that of `_BYTES` of outputs, since outputs per pixel or token may
            be larger than all else.

        Raises:
            ValueError: for a loss without one value per sample, or one that depends on the other samples.
            ValueError: for outputs and targets that do not fit the loss, or labels beyond the classes of the outputs.
        """
        with torch.no_grad():
            outputs = network(inputs)
        if self.user is not None:
            self.user.check(at_least_single(outputs), targets)
        else:
            self._check_range(outputs, targets)
            self._check_probabilities(targets)
            self._warn_of_copied(inputs, targets)
            with torch.no_grad():
                self.per_sample(outputs, targets)
            if self.named in _CLASSES:
                warn_of_probabilities(outputs.movedim(_CLASSES[self.named], -1).flatten(0, -2), network)
            elif self.named == "binary_cross_entropy":
                warn_of_probabilities(outputs.reshape(len(outputs), -1), network)
        return batch_size if fixed else samples_within(outputs.nbytes // len(outputs), batch_size, _BYTES)

    def _check_probabilities(self, targets: Tensor) -> None:
        """Check that the targets of a binary cross-entropy are probabilities.

        Raises:
            ValueError: for others, such as -1 and 1.
        """
        if self.named != "binary_cross_entropy":
            return
        labels = self.data.labels if isinstance(self.data.store, Memory) else targets.cpu()
        lowest, highest = (float(end) for end in labels.double().aminmax())
        if lowest < 0 or highest > 1:
            fix = "Pass (targets + 1) / 2." if (lowest, highest) == (-1, 1) else "Pass 0 and 1, or probabilities."
            msg = f"the targets of binary_cross_entropy must be in [0, 1], got {lowest:g} to {highest:g}. {fix}"
            raise ValueError(msg)

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss per sample, in float32 at least."""
        # The token loss converts a few tokens at a time.
        return self.kernel(outputs if self._chunked else at_least_single(outputs), targets)

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """The error per sample, or None."""
        if self.user is not None and self.user.error is not None:
            return self.user.error(at_least_single(outputs), targets)
        if not are_classes(targets) or outputs.ndim > 2 or self.named == "model":
            return None
        if outputs.ndim == 2 and outputs.shape[1] > 1:
            return misclassified(outputs, targets)
        return misclassified(two_logits(outputs), targets) if self.data.classes == 2 else None

    def mean(self, pairs: Iterable[tuple[Tensor, Tensor]], count: int) -> Risk:
        """The risk of batches of outputs and targets."""
        totals: list[Tensor] = []
        for outputs, targets in pairs:
            error = self.error(outputs, targets)
            own = (self.per_sample(outputs, targets), *(() if error is None else (error, outputs)))
            sums = [values.sum(dtype=torch.float64) for values in own]
            totals = [total.add_(value) for total, value in zip(totals, sums, strict=True)] if totals else sums
        loss, wrong, output = [*torch.stack(totals).tolist(), float("nan"), 0.0][:3]  # the only wait for a device
        # The error is NaN if a logit is not finite, since the argmax of NaN would count as a class. A loss of -0 is 0.
        return Risk(loss=(0.0 + loss) / count, error=(wrong + 0 * output) / count)

    def _warn_of_copied(self, inputs: Inputs, targets: Tensor) -> None:
        """Warn if the targets of the tokens are the tokens themselves, which a language model does not predict."""
        keywords = getattr(self.kernel, "keywords", {})
        if self.named != "token_cross_entropy" or keywords.get("shift"):
            return
        parts = parts_of(inputs)
        ids = parts.get("inputs['input_ids']", next(iter(parts.values())))
        if ids.shape != targets.shape or ids.is_floating_point():
            return
        counted = targets != keywords.get("ignore_index", -100)
        if bool(counted.any()) and bool((ids.to(targets) == targets)[counted].all()):
            warnings.warn(
                "the targets are the input tokens themselves, and token_cross_entropy compares each with the output at "
                "its own place. For a language model, whose output predicts the next token, give the loss "
                '{"name": "token_cross_entropy", "shift": true} (in Python True)',
                stacklevel=5,
            )

    def _check_range(self, outputs: Tensor, targets: Tensor) -> None:
        """Check of integer targets against the number of classes of the outputs.

        Raises:
            ValueError: for a label beyond them.
        """
        place, keywords = _CLASSES.get(self.named or ""), getattr(self.kernel, "keywords", {})
        # A stream would be read as a whole.
        labels = self.data.labels if isinstance(self.data.store, Memory) else targets.cpu()
        if place is None or outputs.ndim <= place or labels.is_floating_point():
            return
        wrong = (labels != keywords.get("ignore_index", -100)) & ((labels < 0) | (labels >= outputs.shape[place]))
        if bool(wrong.any()):
            row = int(wrong.reshape(len(labels), -1).any(1).nonzero()[0])
            msg = (
                f"a label of sample {row} is {int(labels[row][wrong[row]][0])}; expected 0 to "
                f"{outputs.shape[place] - 1}, the classes of the outputs, or the loss's ignore_index: "
                f"loss={{'name': {self.named!r}, 'ignore_index': ...}}"
            )
            raise ValueError(msg)
