"""The state of a training in progress."""

import copy
import math
import time

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.functional.user_loss import UserLoss
from flatprobe.models.checkpoints import load_weights
from flatprobe.network.class_names import set_class_names
from flatprobe.risk.empirical import EmpiricalRisk, Risk
from flatprobe.training.constrained import Projection
from flatprobe.training.diverged import DivergedError
from flatprobe.training.epoch import train_epoch
from flatprobe.training.memory import memory_of, remember
from flatprobe.training.objective import OBJECTIVE, Terms, named_penalties
from flatprobe.training.optimizers import make_optimizer, optimizer_tensors, restore_optimizer
from flatprobe.training.run_folder import Progress, Row
from flatprobe.training.schedules import factor
from flatprobe.training.settings import Settings, reached
from flatprobe.utils.tensor_files import State


class Trainer:
    """A network, its optimizer and its history, one epoch after the other.

    Between epochs the network is in eval mode; `resting` names the parts of it that are so in steps as well.

    Args:
        module: is trained in place.
        data: the training data.
        validation: measured beside it, or None.
        settings: what `train` was asked for.
    """

    def __init__(
        self, module: nn.Module, data: LabelledData, validation: LabelledData | None, settings: Settings
    ) -> None:
        self.resting = resting_parts(module)
        self.module = module.eval()
        self.settings = settings
        self.risk = EmpiricalRisk(module, data, settings.objective)
        set_class_names(module, data.source.get("class_names"))
        if isinstance(settings.objective, UserLoss):
            settings.objective.check_differentiable()
        self.validation = None if validation is None else EmpiricalRisk(module, validation, settings.objective)
        self.history: list[Row] = []
        self._terms = Terms(
            module=module,
            placed=self.risk.network,
            loss=settings.objective,
            penalties=named_penalties(settings.penalties),
            transforms=copy.deepcopy(settings.transforms),  # some keep count of their calls
            precision=settings.precision,
            seed=settings.seed,
        )
        self._projection = Projection(module, self.risk, settings.constraints)
        self._optimizer = make_optimizer(
            settings.optimizer,
            module.parameters(),
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
        )
        self._best = math.inf

    def done(self) -> bool:
        """Whether the stopping rule is met or the epochs are used up."""
        return bool(self.history) and (
            len(self.history) == self.settings.epochs or reached(vars(self.settings), self.history[-1])
        )

    def epoch(self) -> bool:
        """Train one epoch and measure; whether the loss that chooses the best weights has improved.

        Raises:
            DivergedError: if a term of a step, or the training loss, is not finite any more.
        """
        settings, epoch, started = self.settings, len(self.history), time.perf_counter()
        if epoch == 0:
            self._projection()
        self.module.train()
        for name in self.resting:
            self.module.get_submodule(name).eval()
        try:
            means = train_epoch(
                self._terms,
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
        row = {"epoch": epoch + 1, **self.measured("train", self.risk)}
        if self.validation is not None:
            row |= self.measured("validation", self.validation)
        if not math.isfinite(row["train_loss"]):
            msg = (
                f"the training loss is {row['train_loss']} at the end of epoch {epoch + 1}; expected a finite number: "
                f"lower the learning rate (it was {rate:.4g}), or look for inputs that are not normalised"
            )
            raise DivergedError(msg)
        row |= {name: value for name, value in means.items() if name != OBJECTIVE}
        self.history.append({**row, "learning_rate": rate, "seconds": time.perf_counter() - started})
        improved = self._chosen_by(row) < self._best
        self._best = min(self._best, self._chosen_by(row))
        return improved

    def state(self) -> State:
        """A copy of the weights and buffers."""
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def progress(self) -> Progress:
        """What a run folder stores; it shares the memory of the network."""
        kept = {**optimizer_tensors(self._optimizer), **memory_of(self._parts())}
        return Progress(self.history, dict(self.module.state_dict()), kept)

    def copied_progress(self) -> Progress:
        """The same with memory of its own."""
        now = self.progress()
        copies = ({name: value.detach().clone() for name, value in part.items()} for part in (now.state, now.optimizer))
        return Progress(list(self.history), *copies)

    def restore(self, progress: Progress | None) -> None:
        """Go on from where an interrupted training stood; None: from the beginning."""
        if progress is None:
            return
        self.history = progress.history
        load_weights(self.module, progress.state, "that resuming reads")
        restore_optimizer(self._optimizer, progress.optimizer)
        remember(self._parts(), progress.optimizer)
        self._best = min(self._chosen_by(row) for row in self.history)

    def measured(self, name: str, risk: EmpiricalRisk) -> Row:
        """Loss and accuracy of the network as it is now, as entries of a row."""
        now: Risk = risk({**dict(self.module.named_parameters()), **dict(self.module.named_buffers())})
        return {f"{name}_loss": now.loss, f"{name}_accuracy": 1 - now.error}

    def _parts(self) -> dict[str, object]:
        """Penalties and constraints by name, some of which have a memory."""
        penalties = {f"penalty.{name}": penalty for name, (_, penalty) in self._terms.penalties.items()}
        return penalties | {f"constraint.{k}": part for k, part in enumerate(self._projection.constraints)}

    def _chosen_by(self, row: Row) -> float:
        loss: float = row["train_loss" if self.validation is None else "validation_loss"]
        return loss


def resting_parts(module: nn.Module) -> list[str]:
    """The outermost parts that the caller has put to rest: their statistics stay, and their dropout is off.

    In a network in training mode, the parts in eval mode; in one that is in eval mode throughout, those of which every
    parameter is frozen.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> network[1] = network[1].eval()
    >>> resting_parts(network)
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
