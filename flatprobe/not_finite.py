"""The reason why a risk at its network's own weights is not finite."""

from typing import TYPE_CHECKING, Any, NoReturn

import torch

from flatprobe.outputs import check_logits

if TYPE_CHECKING:
    from flatprobe.risk import EmpiricalRisk


def report_not_finite(risk: "EmpiricalRisk") -> NoReturn:
    """Why the risk at the network's own weights is not finite.

    Raises:
        ValueError: naming the first sample whose logits are not finite, or whose loss is not.
    """
    start = 0
    with torch.no_grad():
        for inputs, labels in risk.batches():
            logits = risk.network(inputs)
            check_logits(logits, start)
            values = risk.per_sample(logits, labels)
            for row in (~values.isfinite()).nonzero().flatten().tolist()[:1]:
                fix = (
                    "look for a logarithm of 0, a division by 0 or a label that it does not know"
                    if isinstance(risk.loss, dict) and "source" in risk.loss
                    else "probe it in float64"
                )
                msg = (
                    f"the loss {_name(risk.loss)} of sample {start + row} (label {int(labels[row])}) is "
                    f"{float(values[row])} at the network's own weights though its logits are finite; expected finite "
                    f"losses: {fix}"
                )
                raise ValueError(msg)
            start += len(labels)
    msg = f"the sum of the losses {_name(risk.loss)} overflows at the network's own weights; probe it in float64"
    raise ValueError(msg)


def _name(loss: Any) -> str:
    return str(loss["name"]) if isinstance(loss, dict) and "name" in loss else str(loss)
