"""User modules as pure functions of weights and inputs."""

from flatprobe.network.network import BATCH_SIZES, Network

__all__ = ["BATCH_SIZES", "Network"]
