"""One forward pass in training, shared by the objective and all penalties."""

from flatprobe.training.forward.forward_pass import ForwardPass
from flatprobe.training.forward.labels import Mixture
from flatprobe.training.forward.layers import Layer

__all__ = ["ForwardPass", "Layer", "Mixture"]
