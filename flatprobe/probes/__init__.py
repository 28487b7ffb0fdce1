"""The probes: plain functions, subject first, that return frozen results of raw values."""
