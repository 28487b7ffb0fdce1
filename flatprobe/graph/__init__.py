"""Traced networks as graphs of operations, and quantities on them."""

from flatprobe.graph.folding import fold
from flatprobe.graph.steps import Graph, Step
from flatprobe.graph.tracer import trace

__all__ = ["Graph", "Step", "fold", "trace"]
