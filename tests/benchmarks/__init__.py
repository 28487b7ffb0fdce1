"""Speed and memory against the obvious alternatives: ratios of interleaved rounds in one run, never absolute times."""
