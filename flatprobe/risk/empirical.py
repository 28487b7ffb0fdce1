"""The empirical risk of a network as a function of its weights."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.data.inputs import Inputs
from flatprobe.functional.user_loss import Loss
from flatprobe.network.checks import check_batch, check_exchangeable, report_not_finite
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.outputs import Output
from flatprobe.network.slopes import check_weight_slopes
from flatprobe.network.weights import Weights, as_mapping, combine
from flatprobe.risk.derivatives import mean_of, summed_gradient, summed_gradients
from flatprobe.risk.function import Risk as Risk
from flatprobe.risk.function import RiskFunction as RiskFunction
from flatprobe.risk.function import risk_at
from flatprobe.risk.held import HeldData
from flatprobe.risk.hessian import KEPT, HessianBlock
from flatprobe.risk.lines import along_split, split_for
from flatprobe.risk.task import Task
from flatprobe.utils.memory import fit_batch_size


class EmpiricalRisk:
    """Empirical risk I(w) = (1/n) sum_i l(f_w(x_i), y_i) at any weights w.

    The network runs in eval mode at explicit weights. Losses per sample have the dtype of the network, or float32 in
    half precision. Their sum over the batches is in float64 and divided once, so that the batch size changes the result
    by rounding alone. The center is a snapshot of the weights: later training of the model does not change the risk.

    Cost of a call: 1 forward pass over the data. Copies of the data (on a GPU, in another dtype) are kept up to 2 GiB.

    Args:
        model: a network in eval mode, for named losses of classes a classifier; never changed.
        data: inputs and labels, or other targets.
        loss: `"cross_entropy"` (default: the objective in the experiments of Poggio et al. (2017) [T3]) or another
            objective of `fp.train`, for class indices. For other tasks `"squared_error"`, `"absolute_error"`,
            `"binary_cross_entropy"`, `"pixel_cross_entropy"` or `"token_cross_entropy"`; `"model"` for the `loss` that
            the network returns, sample by sample. Or any function or module (outputs, targets) -> (samples,). Losses
            of torch are called with `reduction="none"`, and values for parts of a sample are averaged per sample: I is
            the mean over the samples, also for a class-weighted loss w_y l, where torch divides by the sum of the w_y.
        batch_size: samples per forward pass; None (default) reads the measured table `flatprobe.network.BATCH_SIZES`,
            on a GPU within a fixed bound on the bytes of a batch. Where memory runs out, it is halved with a warning.
        output: the output that is measured: a key, an attribute, an index, or a function of all that the network
            returns. None (default) takes a tensor, or `logits` of a dict or object.

    Raises:
        ValueError: for a model in training mode, or with weights that are not finite.
        ValueError: for an output that the loss does not take, or with fewer classes than the labels.
        ValueError: for targets that the loss does not take.
        ValueError: if two passes over a batch differ, or logits depend on the other samples of the batch.
        ValueError: for a loss without one value per sample, or one that depends on the other samples of the batch.
        TypeError: for a loss that is neither a name nor a function.

    >>> from flatprobe.data import LabelledData
    >>> data = LabelledData(torch.eye(2), torch.tensor([0, 1]))
    >>> EmpiricalRisk(nn.Linear(2, 2).eval(), data, loss="squared")({"weight": torch.eye(2), "bias": torch.zeros(2)})
    Risk(loss=0.0, error=0.0)
    """

    @standalone
    def __init__(
        self,
        model: nn.Module,
        data: LabelledData,
        loss: Loss | Any = "cross_entropy",
        batch_size: int | None = None,
        *,
        output: Output | Any = None,
    ) -> None:
        self.task = Task(loss, data)
        self.network = Network(model, self.task.read(output))
        self.data, self.loss = self.task.data, self.task.record
        self.batch_size = self.network.batch_size(batch_size, self.data)
        self.held = HeldData(self.network, self.data)
        check_batch(self.network, next(iter(self.data.batches(self.batch_size))), self.data.classes)
        check_exchangeable(self.network)
        self._compared: set[tuple[frozenset[str], bool]] = set()
        if not self.task.classifier:
            few = next(self._batches(torch.arange(min(self.task.checked, len(data), self.batch_size))))
            self.batch_size = self.task.check(self.network, *few, self.batch_size, fixed=batch_size is not None)

    @property
    def center(self) -> Weights:
        """The weights of the model, a snapshot."""
        return self.network.weights

    @property
    def buffers(self) -> Weights:
        """The buffers of the model (BatchNorm statistics among them), a snapshot."""
        return self.network.buffers

    @standalone
    def __call__(self, weights: Mapping[str, Tensor] | None = None, /) -> Risk:
        """Risk at the given weights, over the whole data set.

        Args:
            weights: parameters or buffers by name; None for the center. Missing names keep the values of the model.

        Returns:
            Loss and error. They are not finite if the outputs are not, which probes count as outside the level.
            Without class indices there is no error: NaN.

        Raises:
            ValueError: if the loss at the center is not finite, naming the first such sample.
            ValueError: for a name that the network does not have.
        """
        self._check_names(as_mapping(weights))
        with torch.no_grad():
            risk = self._mean((self.network(inputs, weights), labels) for inputs, labels in self._batches())
        if weights is None and not math.isfinite(risk.loss):
            report_not_finite(self.network, self._batches(), self.task.per_sample, self.loss)
        return risk

    @standalone
    def along(
        self, vectors: Sequence[Mapping[str, Tensor]], kept: list[Tensor | None] | None = None
    ) -> Callable[[Sequence[float]], Risk]:
        """The function c -> I(sum_k c_k v_k) of coefficients c.

        A line is `along([w, u])` at (1, s), a simplex `along([w1, w2, w3])`.

        If the first layer is an `nn.Linear` inside plain `nn.Sequential` modules, its outputs are affine in c. They are
        computed once per vector and combined, which gives the same sum without the largest product of an MLP. Otherwise
        the weights are combined and the whole network runs.

        Args:
            vectors: weights or directions; a name that a vector lacks counts as zero in it. Names that all vectors lack
                keep the values of the model.
            kept: an empty list, for several calls with the same first vector: its outputs are computed once.

        Returns:
            A function of the coefficients, one per vector.
        """
        split = split_for(self.network, self.data, vectors)
        if split is None:
            return lambda coefficients: self(combine(vectors, coefficients))
        return along_split(self.network, self._batches(), self._mean, split, vectors, [] if kept is None else kept)

    def gradient(
        self,
        weights: Mapping[str, Tensor] | None = None,
        names: Sequence[str] | None = None,
        positions: Int64[Tensor, " positions"] | None = None,
    ) -> Weights:
        """Gradient grad I(w), summed in float64, in the dtype of the weights.

        Cost: 1 forward and 1 backward pass over the data.

        Args:
            weights: the point w; None for the center.
            names: the parameters of the gradient, which saves the work for the others; None for all.
            positions: the samples of the mean loss; None for all of the data.

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
        """Loss I(w) and gradient grad I(w) by the same pass; arguments as in `gradient`."""
        point, names = self._point(weights, names, twice=False)
        value, total = summed_gradient(self._losses(positions), point, names)
        count = len(self.data) if positions is None else len(positions)
        return float(value) / count, mean_of(total, count, self.center)

    def gradient_sums(self, names: Sequence[str]) -> Callable[[Tensor], Weights]:
        """The function from positions of samples to their summed gradient at the center, for many minibatches."""
        point, names = self._point(None, names, twice=False)
        gradient = summed_gradients(point, names)
        return lambda positions: gradient(self._losses(positions))

    def hvp(
        self,
        weights: Mapping[str, Tensor] | None,
        direction: Mapping[str, Tensor],
        names: Sequence[str] | None = None,
    ) -> Weights:
        """Hessian product H(w) v, the derivative of the gradient along a direction v.

        Cost: 2 to 5 gradients.

        Args:
            weights: the point w; None for the center.
            direction: v; a missing name counts as zero.
            names: the parameters of the block of the Hessian; None for all.

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
        """`hvp` for several directions, which share the forward pass and gradient."""
        for direction in directions:
            self._check_names(as_mapping(direction))
        point, names = self._point(weights, names, twice=True)
        block = HessianBlock(partial(self._losses, None), point, names, len(self.data), 0)
        return block.products(directions, self.center)

    @standalone
    def hessian(self, names: Sequence[str]) -> HessianBlock:
        """The Hessian's block at the center, whose products share graphs, always that of a single batch."""
        self._point(None, names, twice=True)
        kept = math.inf if len(self.data) <= self.batch_size else 0 if self.network.slots.leaves_traces else KEPT
        return HessianBlock(partial(self._losses, None), self.center, names, len(self.data), kept)

    def forms(self, directions: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> list[dict[str, float]]:
        """Quadratic forms (v, H v) per parameter and direction at the center."""
        return self.hessian(names).forms(directions)

    def describe(self) -> dict[str, object]:
        """Fingerprint of the risk, as records hold it."""
        subject = {"network": self.network.describe(), "data": self.data.describe()}
        return {**subject, "loss": self.loss, "batch_size": self.batch_size}

    def _check_slopes(self, names: Sequence[str], *, twice: bool) -> None:
        """Check, once per selection, of the derivatives of autograd; wrong ones are an error."""
        key = frozenset(names), twice
        if key not in self._compared:
            if not self.task.classifier and not self._compared:
                self()  # Such a loss that is not finite may have finite derivatives.
            inputs, _ = next(self._batches())
            check_weight_slopes(self.network, inputs, names, twice=twice)
            self._compared |= {key, (key[0], False)}

    def _check_names(self, weights: Mapping[str, Tensor | None]) -> None:
        unknown = [name for name in weights if name not in self.center and name not in self.buffers]
        if unknown:
            msg = f"the network has no parameter {unknown[0]!r}; expected names among {', '.join(self.center)}"
            raise ValueError(msg)

    def _batches(self, positions: Tensor | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        self.batch_size = fit_batch_size(self.batch_size)
        if self.held.network is not self.network:  # A copy of a risk may have another network.
            self.held = HeldData(self.network, self.data)
        return self.held.batches(self.batch_size) if positions is None else self.held.at(positions, self.batch_size)

    def _mean(self, outputs: Iterator[tuple[Tensor, Tensor]]) -> Risk:
        fit_batch_size(self.batch_size)  # Where memory runs out along a line, the calling probe begins anew.
        return self.task.mean(outputs, len(self.data))

    def _point(
        self, weights: Mapping[str, Tensor] | None, names: Sequence[str] | None, *, twice: bool
    ) -> tuple[Weights, Sequence[str]]:
        self._check_names({**as_mapping(weights), **dict.fromkeys(names or ())})
        if self.task.user is not None:
            self.task.user.check_differentiable()
        names = tuple(self.center) if names is None else names
        self._check_slopes(names, twice=twice)
        return {**self.center, **(weights or {})}, names

    def _losses(self, positions: Tensor | None) -> Iterator[Callable[[Weights], Tensor]]:
        for inputs, labels in self._batches(positions):
            yield partial(self._summed, inputs, labels)

    def _summed(self, inputs: Inputs, labels: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        return self.task.per_sample(self.network(inputs, weights), labels).sum()


def along(
    risk: RiskFunction, vectors: Sequence[Mapping[str, Tensor]], kept: list[Tensor | None] | None = None
) -> Callable[[Sequence[float]], Risk]:
    """`EmpiricalRisk.along`, or the same function for any other risk."""
    if isinstance(risk, EmpiricalRisk):
        return risk.along(vectors, kept)
    return lambda coefficients: risk_at(risk, {**risk.center, **combine(vectors, coefficients)})


def describe(risk: RiskFunction) -> dict[str, object]:
    """Fingerprint of an `EmpiricalRisk`, or the class name of any other risk."""
    return risk.describe() if isinstance(risk, EmpiricalRisk) else {"risk": type(risk).__name__}


def explain_start(risk: RiskFunction) -> None:
    """Error that explains a risk that is not finite at its center, if known."""
    if isinstance(risk, EmpiricalRisk):
        risk()
