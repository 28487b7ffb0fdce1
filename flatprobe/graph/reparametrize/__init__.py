"""Reparametrizations of a network that keep its function or decisions."""

from flatprobe.graph.reparametrize.chains import Chain, Layout, layout
from flatprobe.graph.reparametrize.changes import CHANGES, Change, reparametrize

__all__ = ["CHANGES", "Chain", "Change", "Layout", "layout", "reparametrize"]
