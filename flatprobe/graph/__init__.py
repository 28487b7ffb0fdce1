"""Traced networks as graphs of operations, and quantities that are computed on them."""

from flatprobe.graph.folding import folded
from flatprobe.graph.steps import Graph, Step
from flatprobe.graph.tracer import trace

__all__ = ["Graph", "Step", "folded", "trace"]
