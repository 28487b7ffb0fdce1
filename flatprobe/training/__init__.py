"""The training core: one loop, the run that it returns, and the choice of a strength."""

from flatprobe.training.chains import LangevinChains, langevin_chains
from flatprobe.training.diverged import DivergedError
from flatprobe.training.forward import ForwardPass
from flatprobe.training.loop import train
from flatprobe.training.many import train_many
from flatprobe.training.run import TrainingRun
from flatprobe.training.schedules import inverse_rate
from flatprobe.training.tuning.result import Tuning
from flatprobe.training.tuning.tune import tune

__all__ = [
    "DivergedError",
    "ForwardPass",
    "LangevinChains",
    "TrainingRun",
    "Tuning",
    "inverse_rate",
    "langevin_chains",
    "train",
    "train_many",
    "tune",
]
