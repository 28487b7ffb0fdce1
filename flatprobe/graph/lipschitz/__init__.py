"""Proven Lipschitz constants of networks, and the margins that they certify."""

from flatprobe.graph.lipschitz.certificates import certified_margins
from flatprobe.graph.lipschitz.constants import activation_constant, convolution_of, propagate, step_constants
from flatprobe.graph.lipschitz.margins import Bound, certified_bounds, explain_zero_bounds

__all__ = [
    "Bound",
    "activation_constant",
    "certified_bounds",
    "certified_margins",
    "convolution_of",
    "explain_zero_bounds",
    "propagate",
    "step_constants",
]
