"""Networks of one architecture with stacked weights: steps and evaluations of all of them at once."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from flatprobe.data.inputs import Inputs, map_tensors, tensors
from flatprobe.functional.losses import per_sample_loss
from flatprobe.risk.function import Risk
from flatprobe.risk.lockstep import stacked_logits, sums_of
from flatprobe.training.trainer import Trainer

Numbers = Float[Tensor, " networks"]


class Stack:
    """The parameters of K networks as tensors (K, ...), with the forward pass of all by `torch.vmap`.

    Args:
        trainers: one per network; their data are in memory, and of one size.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = list(trainers)
        first = trainers[0]
        # A `Network` puts the weights into every place that refers to them, unlike `torch.func.functional_call`.
        self._network = first.risk.network.copy()
        self._network.lay_out(last=False)
        self._kernel = per_sample_loss(first.settings.objective)
        self._names = [name for name, value in first.module.named_parameters() if value.requires_grad]
        states = [{**dict(own.module.named_parameters()), **dict(own.module.named_buffers())} for own in trainers]
        self._state = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
        for name in self._names:
            self._state[name].requires_grad_()
        self._memory: dict[str, list[Tensor]] = {}
        self._count = 0
        self._shared = all(own.risk.data.inputs is first.risk.data.inputs for own in trainers)
        self._labels = torch.stack([own.risk.data.labels for own in trainers])

    @property
    def parameters(self) -> list[Tensor]:
        """The trained parameters, each (networks, ...)."""
        return [self._state[name] for name in self._names]

    def losses(self, positions: Int64[Tensor, "networks batch"]) -> Numbers:
        """The mean loss of each network over its own batch."""
        inputs = self._gather(positions)
        labels = self._labels.gather(1, positions).to(self._network.device)
        return self._per_sample(self._logits(inputs, 0), labels).mean(1)

    def logits_at(self, positions: Int64[Tensor, "networks batch"]) -> Float[Tensor, "networks batch classes"]:
        """The logits of each network on its own samples, without gradients."""
        with torch.no_grad():
            return self._logits(self._gather(positions), 0)

    def step(self, rates: Numbers, decays: Numbers) -> None:
        """Change the weights along their gradients; parameters that the loss does not use stay as they are.

        Args:
            rates: learning rate of each network.
            decays: weight decay of each network.
        """
        self._count += 1
        settings = self.trainers[0].settings
        update = UPDATES[str(settings.optimizer)]
        with torch.no_grad():
            for name in self._names:
                value = self._state[name]
                if value.grad is None:
                    continue
                rate, decay = (part.view(-1, *(1,) * (value.ndim - 1)).to(value) for part in (rates, decays))
                gradient = value.grad.addcmul(value, decay)
                update(value, gradient, rate, self._memory.setdefault(name, []), settings.momentum, self._count)
                value.grad = None

    @torch.no_grad()
    def risks(self) -> list[Risk]:
        """Loss and error of each network over all of its data."""
        size, samples = self.trainers[0].risk.batch_size, self._labels.shape[1]
        sums = torch.zeros(2, len(self.trainers), dtype=torch.float64, device=self._network.device)
        for start in range(0, samples, size):
            labels = self._labels[:, start : start + size].to(self._network.device)
            parts = [own.risk.data.inputs for own in (self.trainers[:1] if self._shared else self.trainers)]
            batches = [map_tensors(lambda part: part[start : start + size], part) for part in parts]  # noqa: B023
            logits = self._logits(batches[0] if self._shared else _stacked(batches), None if self._shared else 0)
            sums += sums_of(self._kernel, logits, labels)
        return [Risk(loss / samples, error / samples) for loss, error in sums.T.tolist()]

    def write_back(self) -> None:
        """Copy each network's weights into its module."""
        with torch.no_grad():
            for place, own in enumerate(self.trainers):
                for name, value in own.module.named_parameters():
                    value.copy_(self._state[name][place])

    def keep(self, places: Sequence[int]) -> None:
        """Continue with the networks at these places alone."""
        if len(places) == len(self.trainers):
            return
        rows = torch.tensor(places, dtype=torch.int64, device="cpu")
        self.trainers = [self.trainers[place] for place in places]
        self._labels = self._labels[rows]
        for name, value in self._state.items():
            self._state[name] = value.detach()[rows.to(value.device)].requires_grad_(value.requires_grad)
        self._memory = {name: [part[rows.to(part.device)] for part in own] for name, own in self._memory.items()}

    def _gather(self, positions: Tensor) -> Inputs:
        if self._shared:
            whole = self.trainers[0].risk.data.gather(positions.flatten())[0]
            return map_tensors(lambda part: part.view(*positions.shape, *part.shape[1:]), whole)
        pairs = zip(self.trainers, positions, strict=True)
        return _stacked([own.risk.data.gather(rows)[0] for own, rows in pairs])

    def _logits(self, inputs: Inputs, axis: int | None) -> Tensor:
        """(networks, samples, classes); `axis` is the inputs' axis of the networks, None for common inputs."""
        return stacked_logits(self._network, self._state, self._network.prepare(inputs), axis)

    def _per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._kernel(logits.flatten(0, 1), labels.flatten()).view_as(labels)


def _stacked(parts: Sequence[Inputs]) -> Inputs:
    """Inputs of several networks as tensors (networks, samples, ...)."""
    columns = [torch.stack(column) for column in zip(*map(tensors, parts), strict=True)]
    first = parts[0]
    if isinstance(first, dict):
        return dict(zip(first, columns, strict=True))
    return tuple(columns) if isinstance(first, tuple) else columns[0]


def _sgd(weights: Tensor, gradient: Tensor, rate: Tensor, memory: list[Tensor], momentum: float, _: int) -> None:
    weights.sub_(rate * _velocity(gradient, memory, momentum))


def _nesterov(weights: Tensor, gradient: Tensor, rate: Tensor, memory: list[Tensor], momentum: float, _: int) -> None:
    weights.sub_(rate * gradient.add(_velocity(gradient, memory, momentum), alpha=momentum))


def _velocity(gradient: Tensor, memory: list[Tensor], momentum: float) -> Tensor:
    if memory:
        memory[0].mul_(momentum).add_(gradient)
    else:
        memory.append(gradient.clone())
    return memory[0]


def _adam(weights: Tensor, gradient: Tensor, rate: Tensor, memory: list[Tensor], momentum: float, step: int) -> None:
    if not memory:
        memory.extend(torch.zeros_like(gradient) for _ in range(2))
    mean, square = memory
    mean.lerp_(gradient, 1 - momentum)
    square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    scale = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
    weights.sub_(rate * (mean / (1 - momentum**step)) / scale)


# Steps of `flatprobe.training.optimizers` with a rate per network.
UPDATES: dict[str, Callable[..., None]] = {"sgd": _sgd, "nesterov": _nesterov, "adam": _adam}
