"""The training core: one loop, and the run that it returns."""

from flatprobe.training.loop import train
from flatprobe.training.run import TrainingRun
from flatprobe.training.schedules import inverse_rate

__all__ = ["TrainingRun", "inverse_rate", "train"]
