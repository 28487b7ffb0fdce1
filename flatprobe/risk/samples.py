"""Loss and correctness of each sample at the center of a risk."""

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.checks import report_not_finite
from flatprobe.risk.empirical import EmpiricalRisk

Values = Float64[Tensor, " samples"]


def per_sample(risk: EmpiricalRisk) -> tuple[Values, Values]:
    """Loss, and 1 - error, in the data's order, on the CPU; 1 where a class is right, NaN where there is no error.

    Cost: 1 forward pass over the data.

    Raises:
        ValueError: if a loss is not finite, naming the first such sample.
    """
    losses, correct = [], []
    with torch.no_grad():
        for inputs, targets in risk._batches():  # noqa: SLF001 - the risk's own pass, with its memory rule
            outputs = risk.network(inputs)
            losses.append(risk.task.per_sample(outputs, targets).double())
            error = risk.task.error(outputs, targets)
            correct.append(torch.full_like(losses[-1], torch.nan) if error is None else 1 - error.double())
    values = torch.cat(losses).cpu()
    if not bool(values.isfinite().all()):
        report_not_finite(risk.network, risk._batches(), risk.task.per_sample, risk.loss)  # noqa: SLF001
    return values, torch.cat(correct).cpu()
