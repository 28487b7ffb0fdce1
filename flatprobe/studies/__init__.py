"""What combines probes and training."""
