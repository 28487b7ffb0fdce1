"""Proven Lipschitz constants of networks, and the margins that they certify."""

from flatprobe.graph.lipschitz.certificates import certified_margins
from flatprobe.graph.lipschitz.constants import activation_constant, convolution_of, propagated, step_constants
from flatprobe.graph.lipschitz.margins import Bound, certified_ends, drowned

__all__ = [
    "Bound",
    "activation_constant",
    "certified_ends",
    "certified_margins",
    "convolution_of",
    "drowned",
    "propagated",
    "step_constants",
]
