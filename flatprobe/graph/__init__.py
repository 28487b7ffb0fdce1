"""A network as the operations that it applies, read off by tracing it: whatever way its code is written."""

from flatprobe.graph.folding import folded
from flatprobe.graph.steps import Graph, Step
from flatprobe.graph.tracer import trace

__all__ = ["Graph", "Step", "folded", "trace"]
