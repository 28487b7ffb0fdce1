"""The training core: one loop, the run that it returns, and the choice of a strength."""

from flatprobe.training.loop import train
from flatprobe.training.passes import ForwardPass
from flatprobe.training.run import TrainingRun
from flatprobe.training.schedules import inverse_rate
from flatprobe.training.tuned import Tuning
from flatprobe.training.tuning import tune

__all__ = ["ForwardPass", "TrainingRun", "Tuning", "inverse_rate", "train", "tune"]
