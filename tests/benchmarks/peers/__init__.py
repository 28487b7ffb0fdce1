"""flatprobe's works beside other libraries and plain loops: `make bench-peers`, `python -m tests.benchmarks peers`."""
