"""Whether the penalties of the training core do what they are for."""
