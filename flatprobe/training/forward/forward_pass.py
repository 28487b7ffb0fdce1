"""One forward pass of a network in training, from which the objective and all penalties take what they need."""

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
from flatprobe.network.modules import logits_of, unwrapped
from flatprobe.training.forward.batch_norm import Statistics
from flatprobe.training.forward.errors import check_seen, not_differentiable
from flatprobe.training.forward.labels import Labels, check_derivable, check_labels, climbed, losses
from flatprobe.training.forward.layers import Layer, gradients_at
from flatprobe.training.forward.recorder import Watch
from flatprobe.utils import rng

Points = Float[Tensor, "samples ..."]
Values = Float[Tensor, " samples"]


class ForwardPass:
    """z = f_w(x) on one batch, with gradients in the weights and in the inputs; it is run when it is first asked for.

    The module is called as it is, in the mode that it is in, and only its BatchNorm statistics change, as in any
    training step.

    BatchNorm in training mode normalises with the batch's statistics, for the objective and the penalties alike. A
    derivative with respect to the inputs (`derivative`) holds them constant: it is that of each sample's own logits, in
    the network that this batch's statistics make. A backward pass to the weights goes through them, so a penalty's
    gradient is that of its value. The running statistics, which a probe of the trained network sees, are averages of
    the batches' over the last steps. Dropout draws one mask, which the objective and the penalties share; passes at
    other points (`again`) repeat both statistics and masks, so that a difference between two points is the network's.

    Args:
        module: a classifier that returns logits (samples, classes), or something with an attribute `logits`.
        inputs: x, a batch on the module's device and in its dtype; of a dict or tuple of tensors, the only floating one
            is x and the others are passed on.
        labels: y, (samples,) integers, or a `Mixture`.
        loss: l of the objective, as in `train`; for the penalties that differentiate the loss.
        key: what the penalties' random numbers are a function of, such as (seed, step). None takes torch's global
            generator, as dropout does.
        updates: whether BatchNorm's running statistics are updated.
        lay_out: applied to the inputs on their way in; a copy by default, since a network may write to its inputs.

    Raises:
        ValueError: for labels that are not one integer a sample, and inside torch.inference_mode.

    Source: SPEC sections 1 and 5.

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
        self.module, self.labels, self.key = unwrapped(module), labels, key
        check_seen(self.module)
        self._trains = any(layer.training for layer in self.module.modules())
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
        """The whole inputs with other points in the place of x: what another pass takes."""
        _ = self.inputs
        return points if self._held is None else join(self._held, points)

    @property
    def logits(self) -> Float[Tensor, "samples classes"]:
        """z, a function of the weights and of `inputs`."""
        return self._first[0]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order in which they were applied; see `Layer`."""
        return self._first[1]

    @cached_property
    def losses(self) -> Values:
        """l(z_i, y_i), one a sample."""
        return losses(self.kernel, self.logits, self.labels)

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
        """J^T u per sample: the gradient of sum_i <of_i, along_i> with respect to each sample's input.

        Args:
            of: (samples, ...) a function of the pass, such as the logits or a loss a sample.
            along: u, like `of`; ones where it is left out.
            at: the points that `of` was computed at by `again`, or a place in the graph; None: `inputs`.
            create_graph: whether the derivative is differentiated in its turn; False where its value alone is wanted.

        Returns:
            Like the inputs.

        Raises:
            ValueError: if `of` does not depend differentiably on the inputs.
        """
        points = self.inputs if at is None else at
        along = torch.ones_like(of) if along is None else along.to(of)
        if not of.requires_grad:
            raise ValueError(not_differentiable())
        with self._statistics.held():
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
            along: like `of`; ones where it is left out.
            create_graph: as in `derivative`.

        Returns:
            (layer, gradient in x through this layer alone, gradient in zhat), of the layers that `of` depends on.

        Raises:
            ValueError: if a layer is neither linear nor a convolution, or none is; if `of` does not depend
                differentiably on the inputs.
        """
        if not of.requires_grad:
            raise ValueError(not_differentiable())
        with self._statistics.held():
            return gradients_at(self.layers, of, along, create_graph=create_graph)

    def gradient(self, *, create_graph: bool = True) -> Points:
        """grad_x l(z_i, y_i) of every sample; computed once for all penalties and transforms that ask for it.

        Args:
            create_graph: whether it is differentiated in its turn. Where it is not, its value has its direction also
                where the network is so certain that p_y is rounded to 1 (`climbed`).
        """
        if create_graph:
            if self._gradient is None:
                self._gradient = self.derivative(self.losses)
            return self._gradient
        if self._constant is None:
            self._constant = self.derivative(climbed(self.kernel, self.logits, self.labels), create_graph=False)
        return self._constant

    def again(self, points: Points) -> Float[Tensor, "samples classes"]:
        """The logits of the same network at other points: with this pass' BatchNorm statistics and dropout masks.

        Args:
            points: like the inputs.

        Returns:
            Logits, a function of the weights, and of the points where they require a gradient.
        """
        _ = self.logits  # whose statistics are repeated
        with self._as_before(), self._states_of_first_pass(), self._statistics.replayed():
            return self._run(points)[0]

    def losses_at(self, points: Points, labels: Labels | None = None) -> Values:
        """l(f(x'), y') at other points, by `again`; y' is this batch's where it is left out."""
        return losses(self.kernel, self.again(points), self.labels if labels is None else labels)

    def normal(self, shape: tuple[int, ...], *words: rng.Key) -> Tensor:
        """Standard normal numbers, on the inputs' device and in their dtype."""
        drawn = torch.randn(shape, generator=self._generator(*words), dtype=torch.float32, device="cpu")
        return self._like_inputs(drawn)

    def signs(self, shape: tuple[int, ...], *words: rng.Key) -> Tensor:
        """Independent signs."""
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
        """On their device and in their dtype, which are the logits'; a transform that only draws needs no pass."""
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
        watch = Watch(self.module, self._statistics)
        with watch:
            outputs = self.module(*args, **kwargs)
        return logits_of(outputs, self.module), tuple(watch.layers)

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """Buffers that a pass in training mode writes to are as they were before the first pass; afterwards as now.

        They are BatchNorm's counters, running averages of other layers, the vectors of a spectral norm's power
        iteration.
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
                if not torch.equal(buffer, value):  # those that a graph holds must not be written to
                    buffer.copy_(value)

    @contextmanager
    def _states_of_first_pass(self) -> Iterator[None]:
        """Dropout draws what it drew in the first pass; afterwards the generators are where they were."""
        cpu, cuda = self._states
        with torch.random.fork_rng(devices=[] if self._device is None else [self._device]):
            torch.set_rng_state(cpu)
            if cuda is not None and self._device is not None:
                torch.cuda.set_rng_state(cuda, self._device)
            yield
