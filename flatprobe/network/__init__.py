"""A user's module as a pure function of weights and inputs: copied, checked, never changed."""

from flatprobe.network.network import BATCH_SIZES, Network

__all__ = ["BATCH_SIZES", "Network"]
