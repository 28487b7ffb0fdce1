"""The training core: one loop, and the run that it returns."""

from flatprobe.training.loop import train
from flatprobe.training.passes import ForwardPass
from flatprobe.training.run import TrainingRun
from flatprobe.training.schedules import inverse_rate

__all__ = ["ForwardPass", "TrainingRun", "inverse_rate", "train"]
