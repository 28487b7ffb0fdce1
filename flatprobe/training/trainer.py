"""The state of a training in progress."""

import copy
import math
import time

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from flatprobe.data import LabelledData, check_classes
from flatprobe.data.inputs import as_arguments, map_tensors
from flatprobe.functional.user_loss import UserLoss
from flatprobe.models.weights import load_weights
from flatprobe.network.class_names import set_class_names
from flatprobe.network.outputs import WithOutput, logits_of
from flatprobe.risk.empirical import EmpiricalRisk, Risk
from flatprobe.training.constrained import Projection
from flatprobe.training.diverged import DivergedError
from flatprobe.training.epoch import train_epoch
from flatprobe.training.memory import memory_of, restore_memory
from flatprobe.training.objective import LOSS, Objective, name_penalties
from flatprobe.training.optimizers import build_optimizer, optimizer_tensors, restore_optimizer
from flatprobe.training.run_folder import Progress, Row
from flatprobe.training.schedules import factor
from flatprobe.training.settings import Settings, rule_met
from flatprobe.utils.seeding import seeded
from flatprobe.utils.tensor_files import State


class Trainer:
    """A network, its optimizer and its history, advanced by one epoch at a time.

    Between epochs the network is in eval mode. Its modules in `in_eval_mode` keep that mode in the steps too.

    Args:
        module: trained in place.
        data: the training data.
        validation: measured after each epoch, or None.
        settings: the arguments of `train`.
    """

    def __init__(
        self, module: nn.Module, data: LabelledData, validation: LabelledData | None, settings: Settings
    ) -> None:
        self.in_eval_mode = eval_parts(module)
        self.module = module.eval()
        self.settings = settings
        self.risk = EmpiricalRisk(module, check_classes(data), settings.objective)
        set_class_names(module, data.source.get("class_names"))
        if isinstance(settings.objective, UserLoss):
            settings.objective.check_differentiable()
        self.validation = (
            None if validation is None else EmpiricalRisk(module, check_classes(validation), settings.objective)
        )
        self.history: list[Row] = []
        self._objective = Objective(
            module=module,
            placed=self.risk.network,
            loss=settings.objective,
            penalties=name_penalties(settings.penalties),
            transforms=copy.deepcopy(settings.transforms),  # A user's transform may have a state.
            precision=settings.precision,
            seed=settings.seed,
        )
        self._projection = Projection(module, self.risk, settings.constraints)
        self._optimizer = build_optimizer(
            settings.optimizer,
            module.parameters(),
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
        )
        self._best = math.inf

    def done(self) -> bool:
        """True if the stopping rule is met or no epochs are left."""
        return bool(self.history) and (
            len(self.history) == self.settings.epochs or rule_met(vars(self.settings), self.history[-1])
        )

    def epoch(self) -> bool:
        """Train one epoch and measure; return True if the loss that selects the best weights has improved.

        Raises:
            DivergedError: if a term of the objective, or the training loss, is not finite.
        """
        settings, epoch, started = self.settings, len(self.history), time.perf_counter()
        if epoch == 0:
            self._projection()
        self._enter_training_mode()
        try:
            means = train_epoch(
                self._objective,
                self.risk.data,
                self._optimizer,
                after=self._projection,
                rate=lambda step: settings.learning_rate * factor(settings.schedule, epoch, settings.epochs, step),
                batch_size=settings.batch_size,
                epoch=epoch,
            )
        finally:
            self.module.eval()
        self._projection(settle=True)
        rate = self._optimizer.param_groups[0]["lr"]
        row = {"epoch": epoch + 1, **self.measure("train", self.risk)}
        if self.validation is not None:
            row |= self.measure("validation", self.validation)
        if not math.isfinite(row["train_loss"]):
            msg = (
                f"the training loss is {row['train_loss']} at the end of epoch {epoch + 1}; expected a finite number: "
                f"lower the learning rate (it was {rate:.4g}), or look for inputs that are not normalised"
            )
            raise DivergedError(msg)
        row |= {name: value for name, value in means.items() if name != LOSS}
        self.history.append({**row, "learning_rate": rate, "seconds": time.perf_counter() - started})
        improved = self._chosen_by(row) < self._best
        self._best = min(self._best, self._chosen_by(row))
        return improved

    def state(self) -> State:
        """A copy of the weights and buffers."""
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def progress(self) -> Progress:
        """The state that a run folder stores; it shares the memory of the network."""
        kept = {**optimizer_tensors(self._optimizer), **memory_of(self._parts())}
        return Progress(self.history, dict(self.module.state_dict()), kept)

    def copy_progress(self) -> Progress:
        """A copy of `progress`."""
        now = self.progress()
        copies = ({name: value.detach().clone() for name, value in part.items()} for part in (now.state, now.optimizer))
        return Progress(list(self.history), *copies)

    def restore(self, progress: Progress | None) -> None:
        """Continue from the progress of an interrupted training; None: from the beginning."""
        if progress is None:
            return
        self.history = progress.history
        load_weights(self.module, progress.state, "that resuming reads")
        restore_optimizer(self._optimizer, progress.optimizer)
        restore_memory(self._parts(), progress.optimizer)
        self._best = min(self._chosen_by(row) for row in self.history)

    def measure(self, name: str, risk: EmpiricalRisk) -> Row:
        """Loss and accuracy of the network at its present weights, as entries of a row."""
        module = self.module.network if isinstance(self.module, WithOutput) else self.module
        now: Risk = risk({**dict(module.named_parameters()), **dict(module.named_buffers())})
        return {f"{name}_loss": now.loss, f"{name}_accuracy": 1 - now.error}

    @torch.no_grad()
    def logits_at(self, positions: Int64[Tensor, " batch"]) -> Float[Tensor, "batch classes"]:
        """The logits of a few samples, in the module's present mode."""
        inputs = self.risk.network.prepare(self.risk.data.gather(positions)[0])
        args, kwargs = as_arguments(map_tensors(torch.clone, inputs))
        return logits_of(self.module(*args, **kwargs), self.module, samples=len(positions))

    def acts_otherwise_in_training(self, positions: Int64[Tensor, " batch"]) -> bool:
        """True if training mode changes the logits beyond rounding, or a buffer, or draws random numbers."""
        before, logits = self.state(), self.logits_at(positions)
        self._enter_training_mode()
        with seeded("training mode", device=self.risk.network.device):
            generator = torch.get_rng_state()
            rounding = torch.finfo(logits.dtype).eps ** 0.5 * float(logits.abs().max())
            same = torch.allclose(self.logits_at(positions), logits, rtol=0, atol=rounding)
            same = same and torch.equal(torch.get_rng_state(), generator)
        self.module.eval()
        changed = [not torch.equal(value, before[name]) for name, value in self.module.state_dict().items()]
        load_weights(self.module, before, "before the pass")
        return not same or any(changed)

    def _enter_training_mode(self) -> None:
        self.module.train()
        for name in self.in_eval_mode:
            self.module.get_submodule(name).eval()

    def _parts(self) -> dict[str, object]:
        """Penalties and constraints by name, of which some have a memory."""
        penalties = {f"penalty.{name}": penalty for name, (_, penalty) in self._objective.penalties.items()}
        return penalties | {f"constraint.{k}": part for k, part in enumerate(self._projection.constraints)}

    def _chosen_by(self, row: Row) -> float:
        loss: float = row["train_loss" if self.validation is None else "validation_loss"]
        return loss


def eval_parts(module: nn.Module) -> list[str]:
    """The outermost modules that stay in eval mode: their statistics do not change, and their dropout is off.

    In a network in training mode, these are its modules in eval mode. In a network in eval mode, these are its modules
    whose parameters are all frozen.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> network[1] = network[1].eval()
    >>> eval_parts(network)
    ['1']
    """
    found: list[str] = []
    for name, layer in module.named_modules():
        parameters = list(layer.parameters())
        frozen = bool(parameters) and not any(value.requires_grad for value in parameters)
        rests = not layer.training and (module.training or frozen)
        if name and rests and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found
