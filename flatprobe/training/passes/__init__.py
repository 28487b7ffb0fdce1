"""One forward pass in training, shared by the objective and all penalties."""

from flatprobe.training.passes.forward import ForwardPass
from flatprobe.training.passes.labels import Mixture
from flatprobe.training.passes.layers import Layer

__all__ = ["ForwardPass", "Layer", "Mixture"]
