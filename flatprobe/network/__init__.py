"""User modules as pure functions of weights and inputs."""

from flatprobe.network.batch_sizes import BATCH_SIZES
from flatprobe.network.network import Network

__all__ = ["BATCH_SIZES", "Network"]
