"""Experiments that combine probes and training: comparison, audit, demonstration."""
