"""Effects of the training penalties."""
