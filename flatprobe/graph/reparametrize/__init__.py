"""Reparametrizations: other weights of a network with the same function, or the same decisions."""

from flatprobe.graph.reparametrize.chains import Chain, Layout, layout
from flatprobe.graph.reparametrize.changes import CHANGES, Change, reparametrised

__all__ = ["CHANGES", "Chain", "Change", "Layout", "layout", "reparametrised"]
