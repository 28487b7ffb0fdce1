"""Forward pass of a network in training, shared by the objective and all penalties."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from flatprobe.data.inputs import Inputs, as_arguments, join, map_tensors, only_floating, tensors
from flatprobe.functional.losses import per_sample_loss
from flatprobe.functional.user_loss import Loss, as_loss
from flatprobe.network.modules import unwrap
from flatprobe.network.outputs import logits_of
from flatprobe.training.forward.batch_norm import Statistics
from flatprobe.training.forward.errors import check_seen, not_differentiable
from flatprobe.training.forward.labels import Labels, ascent_losses, check_derivable, check_labels, sample_losses
from flatprobe.training.forward.layers import Layer, gradients_at
from flatprobe.training.forward.recorder import Recorder
from flatprobe.utils import rng

Points = Float[Tensor, "samples ..."]
Values = Float[Tensor, " samples"]


class ForwardPass:
    """z = f_w(x) on one batch, with gradients in the weights and in the inputs; the pass runs at its first use.

    The module runs in its present mode. Only its BatchNorm statistics change, as in any training step.

    BatchNorm in training mode normalizes with the batch's statistics, in the objective and in the penalties. A
    derivative with respect to the inputs (`derivative`) detaches the statistics: it is the derivative of each sample's
    logits in the network with these statistics as constants. A backward pass to the weights goes through the
    statistics, so the gradient of a penalty is that of its value. A probe of the trained network sees the running
    statistics, averages over the last steps. Dropout draws one mask, which the objective and the penalties share.
    Passes at other points (`again`) repeat statistics and masks, so that they compare points of one network.

    Args:
        module: a classifier that returns logits (samples, classes), or an object with an attribute `logits`.
        inputs: x, a batch on the module's device and in its dtype; of a dict or tuple of tensors, the only floating one
            is x.
        labels: y, (samples,) integers, or a `Mixture`.
        loss: l of the objective, as in `train`, for penalties that differentiate the loss.
        key: words that determine the penalties' random numbers, such as (seed, step). None: torch's global generator,
            as for dropout.
        updates: True: update BatchNorm's running statistics.
        lay_out: applied to the inputs before the network; by default a copy, since a network may write to its inputs.

    Raises:
        ValueError: for labels that are not one integer per sample.
        ValueError: inside torch.inference_mode.

    >>> passed = ForwardPass(nn.Linear(2, 2), torch.eye(2), torch.tensor([0, 1]))
    >>> passed.loss.shape, passed.gradient().shape
    (torch.Size([]), torch.Size([2, 2]))
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Inputs,
        labels: Labels | Any,
        *,
        loss: Loss | Any = "cross_entropy",
        key: tuple[rng.Key, ...] | None = None,
        updates: bool = True,
        lay_out: Callable[[Inputs], Inputs] | None = None,
    ) -> None:
        check_derivable(tensors(inputs))
        check_labels(labels, len(tensors(inputs)[0]), "the pass")
        self.module, self.labels, self.key = unwrap(module), labels, key
        self._modules = dict(self.module.named_modules())
        check_seen(self._modules)
        self._trains = any(layer.training for layer in self._modules.values())
        self.named_loss = as_loss(loss)
        self.kernel = per_sample_loss(self.named_loss)
        self._place = None if isinstance(inputs, Tensor) else only_floating(inputs)
        self._held = None if isinstance(inputs, Tensor) or self._place is None else (inputs, self._place)
        self._whole = inputs
        moving = inputs if isinstance(inputs, Tensor) else None if self._held is None else inputs[self._place]  # type: ignore[index]
        self._moving = None if moving is None or not moving.is_floating_point() else moving.detach().requires_grad_()
        self._lay_out = lay_out or partial(map_tensors, torch.clone)
        self._statistics = Statistics(updates=updates)
        self._gradient: Tensor | None = None
        self._constant: Tensor | None = None

    @property
    def inputs(self) -> Points:
        """x, which requires a gradient.

        Raises:
            ValueError: if no input is floating, or several are.
        """
        if self._moving is None:
            msg = (
                "the inputs have no gradient: expected one floating tensor among them, and there are none or several; "
                "for a network on integers, train from its embedding (fp.at_embedding), or take a penalty on the "
                "weights"
            )
            raise ValueError(msg)
        return self._moving

    def with_points(self, points: Points) -> Inputs:
        """The inputs of a pass with other points in the place of x."""
        _ = self.inputs
        return points if self._held is None else join(self._held, points)

    @property
    def logits(self) -> Float[Tensor, "samples classes"]:
        """z, a function of the weights and of `inputs`."""
        return self._first[0]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order of their application; see `Layer`."""
        return self._first[1]

    @cached_property
    def losses(self) -> Values:
        """l(z_i, y_i), one per sample."""
        return sample_losses(self.kernel, self.logits, self.labels)

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The objective: the mean loss."""
        return self.losses.mean()

    def derivative(
        self,
        of: Tensor,
        along: Tensor | None = None,
        *,
        at: Points | GradientEdge | None = None,
        create_graph: bool = True,
    ) -> Points:
        """J^T u per sample, a vjp: the gradient of sum_i <of_i, along_i> with respect to each sample's input.

        Args:
            of: (samples, ...) a function of the pass, such as the logits or the loss per sample.
            along: the cotangent u, shaped like `of`; ones by default.
            at: the points of `again` at which `of` was computed, or a place in the graph; None: `inputs`.
            create_graph: True: the derivative can be differentiated; False: its value only.

        Returns:
            Like the inputs.

        Raises:
            ValueError: if `of` does not depend differentiably on the inputs.
        """
        points = self.inputs if at is None else at
        along = torch.ones_like(of) if along is None else along.to(of)
        if not of.requires_grad:
            raise ValueError(not_differentiable())
        with self._statistics.detached():
            (found,) = torch.autograd.grad(
                of, points, along, create_graph=create_graph, retain_graph=True, allow_unused=True
            )
        if found is None:
            raise ValueError(not_differentiable(elsewhere=at is not None))
        return found

    def layer_gradients(
        self, of: Tensor, along: Tensor | None = None, *, create_graph: bool = True
    ) -> list[tuple[Layer, Tensor, Tensor]]:
        """The gradient of sum_i <of_i, along_i> at every layer zhat = W x + b, by one backward pass.

        Args:
            of: (samples, ...) a function of the pass, such as the logits.
            along: the cotangent, shaped like `of`; ones by default.
            create_graph: as in `derivative`.

        Returns:
            (layer, gradient in x through this layer alone, gradient in zhat), of the layers that `of` depends on.

        Raises:
            ValueError: for a layer that is neither linear nor a convolution, or no layer.
            ValueError: if `of` does not depend differentiably on the inputs.
        """
        if not of.requires_grad:
            raise ValueError(not_differentiable())
        with self._statistics.detached():
            return gradients_at(self.layers, of, along, create_graph=create_graph)

    def gradient(self, *, create_graph: bool = True) -> Points:
        """grad_x l(z_i, y_i) per sample, computed once for all penalties and transforms.

        Args:
            create_graph: True: the gradient can be differentiated. False: the gradient keeps its direction also where
                the network is so certain that p_y rounds to 1.
        """
        if create_graph:
            if self._gradient is None:
                self._gradient = self.derivative(self.losses)
            return self._gradient
        if self._constant is None:
            self._constant = self.derivative(ascent_losses(self.kernel, self.logits, self.labels), create_graph=False)
        return self._constant

    def again(self, points: Points) -> Float[Tensor, "samples classes"]:
        """The logits of the same network at other points: with this pass' BatchNorm statistics and dropout masks.

        Args:
            points: like the inputs.

        Returns:
            Logits, a function of the weights, and of points that require a gradient.
        """
        _ = self.logits  # The first pass, whose statistics are repeated.
        with self._as_before(), self._states_of_first_pass(), self._statistics.replayed():
            return self._run(points)[0]

    def losses_at(self, points: Points, labels: Labels | None = None) -> Values:
        """l(f(x'), y') at other points, by `again`; y' is this batch's by default."""
        return sample_losses(self.kernel, self.again(points), self.labels if labels is None else labels)

    def normal(self, shape: tuple[int, ...], *words: rng.Key) -> Tensor:
        """Standard normal numbers, on the inputs' device and in their dtype."""
        drawn = torch.randn(shape, generator=self._generator(*words), dtype=torch.float32, device="cpu")
        return self._like_inputs(drawn)

    def signs(self, shape: tuple[int, ...], *words: rng.Key) -> Tensor:
        """Rademacher vectors: independent signs."""
        return 2 * self._like_inputs(torch.randint(2, shape, generator=self._generator(*words), device="cpu")) - 1

    def uniform(self, shape: tuple[int, ...], *words: rng.Key) -> Tensor:
        """Uniform numbers in [0, 1)."""
        drawn = torch.rand(shape, generator=self._generator(*words), dtype=torch.float32, device="cpu")
        return self._like_inputs(drawn)

    def integers(self, below: int, shape: tuple[int, ...], *words: rng.Key) -> Tensor:
        """Uniform integers 0, ..., below - 1."""
        drawn = torch.randint(below, shape, generator=self._generator(*words), device="cpu")
        return drawn.to(self.logits.device if self._moving is None else self._moving.device)

    def beta(self, alpha: float, shape: tuple[int, ...], *words: rng.Key) -> Tensor:
        """Beta(alpha, alpha) numbers: the inverse distribution function of uniform ones."""
        from scipy.special import betaincinv  # which would make `import flatprobe` slow

        drawn = torch.rand(shape, generator=self._generator(*words), dtype=torch.float64, device="cpu")
        return self._like_inputs(torch.from_numpy(betaincinv(alpha, alpha, drawn.numpy())))

    def _like_inputs(self, drawn: Tensor) -> Tensor:
        """The numbers on the inputs' device and in their dtype, without a pass for a transform that only draws."""
        return drawn.to(self.logits if self._moving is None else self._moving)

    def _generator(self, *words: rng.Key) -> torch.Generator | None:
        return None if self.key is None else rng.generator(*self.key, *words)

    @cached_property
    def _first(self) -> tuple[Tensor, tuple[Layer, ...]]:
        device = next((value.device for value in self.module.parameters()), torch.device("cpu"))
        self._device = device if device.type == "cuda" else None
        self._states = torch.get_rng_state(), None if self._device is None else torch.cuda.get_rng_state(self._device)
        self._buffers = {name: value.clone() for name, value in self.module.named_buffers()} if self._trains else {}
        try:
            return self._run(self._moving)
        finally:
            if not self._statistics.updates:
                self._restore(self._buffers)

    def _run(self, points: Tensor | None) -> tuple[Tensor, tuple[Layer, ...]]:
        args, kwargs = as_arguments(self._lay_out(self._whole if points is None else self.with_points(points)))
        watch = Recorder(self._modules, self._statistics)
        with watch:
            outputs = self.module(*args, **kwargs)
        return logits_of(outputs, self.module, samples=len(tensors(self._whole)[0])), tuple(watch.layers)

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """Restore the buffers of the time before the first pass in the block, and the present ones afterwards.

        A pass in training mode writes to BatchNorm's counters, running averages of other layers, and the vectors of a
        spectral norm's power iteration.
        """
        now = {name: value.clone() for name, value in self.module.named_buffers() if name in self._buffers}
        self._restore(self._buffers)
        try:
            yield
        finally:
            self._restore(now)

    def _restore(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                buffer = self.module.get_buffer(name)
                if not torch.equal(buffer, value):  # Unchanged buffers may be part of a graph, which forbids writing.
                    buffer.copy_(value)

    @contextmanager
    def _states_of_first_pass(self) -> Iterator[None]:
        """Repeat the first pass' random numbers of dropout in the block; restore the generators afterwards."""
        cpu, cuda = self._states
        with torch.random.fork_rng(devices=[] if self._device is None else [self._device]):
            torch.set_rng_state(cpu)
            if cuda is not None and self._device is not None:
                torch.cuda.set_rng_state(cuda, self._device)
            yield
