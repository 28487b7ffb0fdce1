"""Other weights for the same network: changes that leave its function, or its decisions, as they are."""

from flatprobe.reparametrise.changes import CHANGES, Change, reparametrised
from flatprobe.reparametrise.layout import Chain, Layout, layout

__all__ = ["CHANGES", "Chain", "Change", "Layout", "layout", "reparametrised"]
