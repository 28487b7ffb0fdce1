"""Norms of the input Jacobian, per sample."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData
from flatprobe.functional.jacobian_norms import method_for, norms
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.slopes import check_input_slopes
from flatprobe.probes.per_sample import PerSample, continuous, map_samples
from flatprobe.utils import rng
from flatprobe.utils.arguments import Checked, one_of
from flatprobe.utils.results import settings


@dataclass(frozen=True, kw_only=True, repr=False)
class JacobianNorms(PerSample):
    """Norms of dz/dx or dp/dx, in output units per input unit (logits per pixel scale, with pixels in [0, 1])."""


@standalone
def jacobian_norms(
    model: nn.Module,
    data: LabelledData,
    *,
    norm: Checked[Literal["spectral", "frobenius"]] = "spectral",
    outputs: Checked[Literal["logits", "softmax"]] = "logits",
    method: Checked[Literal["gram", "lanczos"] | None] = None,
    batch_size: int | None = None,
) -> JacobianNorms:
    """||J(x)||_2 or ||J(x)||_F per sample, J = dz/dx (C x d) or dp/dx.

    - `gram`: the eigenvalues of the C x C matrix J J^T, formed in float64. The matrix squares the condition number,
      which costs digits of the small singular values only. Cost: 1 forward and C backward passes per batch. Memory: 1
      set of activations, where `vmap(jacrev)` keeps C.
    - `lanczos` (spectral norm only): Golub-Kahan bidiagonalization with full reorthogonalization, stopped at a relative
      residual of sqrt(eps). Cost: some tens of products with J and J^T, for any number of classes.

    Args:
        model: a classifier in eval mode; never changed.
        data: inputs and labels; the inputs must be one floating tensor.
        norm: `"spectral"` or `"frobenius"`.
        outputs: `"logits"` or `"softmax"`; for the softmax, dp/dx = (diag(p) - p p^T) dz/dx is formed in float64.
        method: `"gram"`, `"lanczos"`, or None (default), which takes Lanczos from
            `functional.jacobian_norms.LANCZOS_CLASSES` classes on, a measured cross-over.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `JacobianNorms` with values (samples,) in output units per unit of the input.

    Raises:
        ValueError: for an unknown word, or `method="lanczos"` with the Frobenius norm.
        ValueError: if the network or the data cannot be probed.
        TypeError: if the inputs are not one floating tensor.

    Source: Sokolic et al. (2017), eqs 20, 48 and 49 and Fig. 4c, d [S17].

    >>> import torch
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> data = LabelledData(torch.zeros(1, 2), torch.tensor([0]))
    >>> jacobian_norms(model, data).values.tolist(), jacobian_norms(model, data, norm="frobenius").values.tolist()
    ([4.0], [5.0])
    """
    _check(norm, outputs, method)
    softmax = outputs == "softmax"
    used: set[str] = set()

    def kernel(network: Network, batch: Batch) -> Tensor:
        inputs = continuous(batch, "jacobian_norms")
        chosen = method or method_for(norm, network.classes, network.architecture)
        used.add(chosen)
        if batch.start == 0:
            check_input_slopes(network, inputs, forward=chosen == "lanczos")
        stop = batch.start + len(batch.labels)
        start = None
        if chosen == "lanczos":
            start = rng.sample_normal(batch.start, stop, (network.classes,), "lanczos", device=network.device)
        return norms(network, inputs, norm=norm, softmax=softmax, start=start)

    values, labels, subject = map_samples(model, data, kernel, batch_size)
    arguments = {"norm": norm, "outputs": outputs, "method": next(iter(used))}
    return JacobianNorms(values=values, labels=labels, settings=settings("jacobian_norms", subject, **arguments))


def _check(norm: object, outputs: object, method: object) -> None:
    one_of("norm", norm, ("spectral", "frobenius"))
    one_of("outputs", outputs, ("logits", "softmax"))
    one_of("method", method, ("gram", "lanczos", None))
    if norm == "frobenius" and method == "lanczos":
        msg = 'method must be None or "gram" for norm="frobenius", got "lanczos", which computes the spectral norm only'
        raise ValueError(msg)
