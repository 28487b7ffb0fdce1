"""The training core: one loop, and the run that it returns."""

from flatprobe.training.loop import train
from flatprobe.training.run import TrainingRun

__all__ = ["TrainingRun", "train"]
