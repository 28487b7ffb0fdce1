"""EmpiricalRisk: the training objective as a function of the weights, the one object that weight-space probes ask."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from flatprobe.data import LabelledData, check_data
from flatprobe.data.inputs import Inputs
from flatprobe.functional.losses import misclassified, per_sample_loss
from flatprobe.functional.user_loss import Loss, UserLoss, as_loss, describe_loss
from flatprobe.network.checks import check_batch, check_exchangeable, report_not_finite
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.slopes import check_weight_slopes
from flatprobe.network.weights import Weights, combined, named
from flatprobe.risk.derivatives import summed_forms, summed_gradient, summed_products
from flatprobe.risk.function import Risk as Risk
from flatprobe.risk.function import RiskFunction as RiskFunction
from flatprobe.risk.function import risk_at
from flatprobe.risk.lines import along_split, split_for

_CHECKED = 16  # samples on which a caller's own loss is looked at


class EmpiricalRisk:
    """I(w) = (1/n) sum_i l(f_w(x_i), y_i) over a whole data set, at any weights.

    The network runs in eval mode through `torch.func.functional_call` at explicit weights; per-sample losses in the
    network's dtype (in float32 for half precision) are summed in float64 over the batches and divided once, so the
    batch size changes the result by rounding alone. The weights are a snapshot taken here: later training of the model
    does not change the risk. One call costs one forward pass over the data.

    Args:
        model: a classifier in eval mode; it is never changed.
        data: inputs and labels.
        loss: `"cross_entropy"` (default: the objective of T3's experiments), another of `fp.train`'s objectives, or any
            function or module (logits, labels) -> (samples,). Torch's losses are called with reduction="none", so that
            I is the mean over the samples also of a class-weighted loss w_y l, where torch divides by the sum of the
            w_y and leaves `ignore_index` out of the count.
        batch_size: samples a forward pass; None (default) reads `flatprobe.network.network.BATCH_SIZES`, a fixed table
            that `make bench` produced.

    Raises:
        ValueError: for a model in training mode, with weights that are not finite, whose output is not (batch,
            classes), whose two passes over a batch differ, or with fewer classes than the labels; for a loss that
            returns no value per sample, or one that depends on the other samples of the batch.
        TypeError: for a loss that is neither a name nor a function.

    Source: SPEC section 1 (empirical risk).

    >>> from flatprobe.data import LabelledData
    >>> data = LabelledData(torch.eye(2), torch.tensor([0, 1]))
    >>> EmpiricalRisk(nn.Linear(2, 2).eval(), data, loss="squared")({"weight": torch.eye(2), "bias": torch.zeros(2)})
    Risk(loss=0.0, error=0.0)
    """

    def __init__(
        self, model: nn.Module, data: LabelledData, loss: Loss | Any = "cross_entropy", batch_size: int | None = None
    ) -> None:
        self.network = Network(model)
        self.data = check_data(data)
        self.batch_size = self.network.batch_size(batch_size)
        loss = as_loss(loss)
        self._kernel = per_sample_loss(loss)
        self.loss = describe_loss(loss)
        check_batch(self.network, next(iter(data.batches(self.batch_size))), data.classes)
        check_exchangeable(self.network)
        self._compared: set[tuple[frozenset[str], bool]] = set()
        if isinstance(loss, UserLoss):
            inputs, labels = next(self._batches(torch.arange(min(_CHECKED, len(data)))))
            loss.check(_at_least_single(self.network(inputs).detach()), labels)

    @property
    def center(self) -> Weights:
        """The model's own weights, a snapshot."""
        return self.network.weights

    @property
    def buffers(self) -> Weights:
        """The model's own buffers (BatchNorm statistics among them), a snapshot."""
        return self.network.buffers

    @standalone
    def __call__(self, weights: Mapping[str, Tensor] | None = None, /) -> Risk:
        """The risk at the given weights, over the whole data set.

        Args:
            weights: by default the center. Names that are left out, parameters or buffers, keep the model's values.

        Returns:
            Loss and error; not finite where the network is not (probes count that as outside).

        Raises:
            ValueError: if the loss at the model's own weights is not finite, naming the first such sample; for a name
                that the network does not have.
        """
        self._check_names(named(weights))
        with torch.no_grad():
            risk = self._mean((self.network(inputs, weights), labels) for inputs, labels in self._batches())
        if weights is None and not math.isfinite(risk.loss):
            report_not_finite(self.network, self._batches(), self._per_sample, self.loss)
        return risk

    @standalone
    def along(self, vectors: Sequence[Mapping[str, Tensor]]) -> Callable[[Sequence[float]], Risk]:
        """Evaluator of c -> I(sum_k c_k v_k): a line is `along([w, u])` at (1, s), a simplex `along([w1, w2, w3])`.

        Where the network's first layer is an `nn.Linear` inside plain `nn.Sequential`s, its outputs are affine in c:
        they are computed once a vector, kept, and combined, which is the same sum and spares the largest product of an
        MLP. Otherwise the weights are combined and the whole network is run.

        Args:
            vectors: weights, or directions; a name that one lacks counts as zero there. Names that all lack keep the
                model's values.

        Returns:
            A function of the coefficients, one a vector.
        """
        split = split_for(self.network, self.data, vectors)
        if split is None:
            return lambda coefficients: self(combined(vectors, coefficients))
        return along_split(self.network, self._batches(), self._mean, split, vectors)

    def gradient(
        self,
        weights: Mapping[str, Tensor] | None = None,
        names: Sequence[str] | None = None,
        positions: Int64[Tensor, " positions"] | None = None,
    ) -> Weights:
        """grad I(w): one forward and one backward pass over the data, summed in float64, in the weights' dtype.

        Args:
            weights: where; None for the center.
            names: the parameters to differentiate by, which spares the work for the others; None for all.
            positions: the samples whose mean loss is meant; None for all of the data.

        Returns:
            The gradient over the names.
        """
        return self.loss_and_gradient(weights, names, positions)[1]

    @standalone
    def loss_and_gradient(
        self,
        weights: Mapping[str, Tensor] | None = None,
        names: Sequence[str] | None = None,
        positions: Int64[Tensor, " positions"] | None = None,
    ) -> tuple[float, Weights]:
        """I(w) and grad I(w), by the same pass; arguments as in `gradient`."""
        point, names = self._point(weights, names)
        self._check_slopes(names, twice=False)
        value, total = summed_gradient(self._losses(positions), point, names)
        count = len(self.data) if positions is None else len(positions)
        return float(value) / count, self._mean_of(total, count)

    def hvp(
        self,
        weights: Mapping[str, Tensor] | None,
        direction: Mapping[str, Tensor],
        names: Sequence[str] | None = None,
    ) -> Weights:
        """H(w) v, the Hessian of I times a direction, by differentiating the gradient along v.

        Two to four gradients' cost.

        Args:
            weights: where; None for the center.
            direction: v; a name that it lacks counts as zero.
            names: the parameters whose block of the Hessian is meant; None for all.

        Returns:
            The product over the names.
        """
        return self.hvps(weights, [direction], names)[0]

    @standalone
    def hvps(
        self,
        weights: Mapping[str, Tensor] | None,
        directions: Sequence[Mapping[str, Tensor]],
        names: Sequence[str] | None = None,
    ) -> list[Weights]:
        """`hvp` for several directions: they share the forward pass and the gradient, and each is kept in float64."""
        point, names = self._point(weights, names)
        for direction in directions:
            self._check_names(named(direction))
        self._check_slopes(names, twice=True)
        totals = summed_products(self._losses(None), point, names, directions)
        return [self._mean_of(total, len(self.data)) for total in totals]

    def forms(self, directions: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> list[dict[str, float]]:
        """(v, H v) by parameter for directions over the names, H at the center: as `hvps`, the products not kept."""
        self._point(None, names)
        self._check_slopes(names, twice=True)
        totals = summed_forms(self._losses(None), self.center, names, directions)
        return [{name: total / len(self.data) for name, total in own.items()} for own in totals]

    def describe(self) -> dict[str, object]:
        """What a record says of the risk."""
        return {
            "network": self.network.describe(),
            "data": self.data.describe(),
            "loss": self.loss,
            "batch_size": self.batch_size,
        }

    def _check_slopes(self, names: Sequence[str], *, twice: bool) -> None:
        """Autograd's derivatives over these parameters are the function's; looked at once.

        Raises:
            ValueError: if they are not.
        """
        asked = frozenset(names), twice
        if asked not in self._compared:
            if isinstance(self._kernel, UserLoss) and not self._compared:
                self()  # whose derivatives where it is not finite may look as if it were
            inputs, _ = next(self._batches())
            check_weight_slopes(self.network, inputs, names, twice=twice)
            self._compared |= {asked, (asked[0], False)}

    def _check_names(self, weights: Mapping[str, Tensor | None]) -> None:
        unknown = [name for name in weights if name not in self.center and name not in self.buffers]
        if unknown:
            msg = f"the network has no parameter {unknown[0]!r}; expected names among {', '.join(self.center)}"
            raise ValueError(msg)

    def _batches(self, positions: Tensor | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        pairs = (
            ((batch.inputs, batch.labels) for batch in self.data.batches(self.batch_size))
            if positions is None
            else map(self.data.gather, torch.split(positions, self.batch_size))
        )
        for inputs, labels in pairs:
            yield self.network.prepare(inputs), self.network.placed(labels)

    def _per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._kernel(_at_least_single(logits), labels)

    def _mean(self, outputs: Iterator[tuple[Tensor, Tensor]]) -> Risk:
        loss = torch.zeros((), dtype=torch.float64, device=self.network.device)
        wrong = torch.zeros_like(loss)
        for logits, labels in outputs:
            loss += self._per_sample(logits, labels).double().sum()
            # NaN where a logit is not finite: the argmax of NaN would count as a class.
            wrong += misclassified(logits, labels).sum() + 0 * logits.double().sum()
        return Risk(loss=float(loss) / len(self.data), error=float(wrong) / len(self.data))

    def _point(
        self, weights: Mapping[str, Tensor] | None, names: Sequence[str] | None
    ) -> tuple[Weights, Sequence[str]]:
        self._check_names({**named(weights), **dict.fromkeys(names or ())})
        if isinstance(self._kernel, UserLoss):
            self._kernel.check_differentiable()
        return {**self.center, **(weights or {})}, tuple(self.center) if names is None else names

    def _losses(self, positions: Tensor | None) -> Iterator[Callable[[Weights], Tensor]]:
        for inputs, labels in self._batches(positions):
            yield partial(self._summed, inputs, labels)

    def _summed(self, inputs: Inputs, labels: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        return self._per_sample(self.network(inputs, weights), labels).sum()

    def _mean_of(self, total: Weights, count: int) -> Weights:
        """The sums divided, each given up as its mean is made: they are twice as long as the weights, or as long."""
        return {name: total.pop(name).div_(count).to(self.center[name]) for name in list(total)}


def _at_least_single(logits: Tensor) -> Tensor:
    """The logits: in half precision a loss of 2 nats is known to 1 %, and its steps would be those of the radii."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def along(risk: RiskFunction, vectors: Sequence[Mapping[str, Tensor]]) -> Callable[[Sequence[float]], Risk]:
    """`EmpiricalRisk.along`, or the same by combining weights where the risk is any other callable."""
    if isinstance(risk, EmpiricalRisk):
        return risk.along(vectors)
    return lambda coefficients: risk_at(risk, {**risk.center, **combined(vectors, coefficients)})


def describe(risk: RiskFunction) -> dict[str, object]:
    """What a record says of the risk: an `EmpiricalRisk` describes itself, any other callable is named."""
    return risk.describe() if isinstance(risk, EmpiricalRisk) else {"risk": type(risk).__name__}


def explain_start(risk: RiskFunction) -> None:
    """An error with the reason why a risk is not finite at its center, where it is known."""
    if isinstance(risk, EmpiricalRisk):
        risk()
