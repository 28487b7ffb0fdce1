"""Other weights for the same network: changes that leave its function, or its decisions, as they are."""

from flatprobe.graph.reparametrize.chains import Chain, Layout, layout
from flatprobe.graph.reparametrize.changes import CHANGES, Change, reparametrised

__all__ = ["CHANGES", "Chain", "Change", "Layout", "layout", "reparametrised"]
