"""The strength of a regularizer, chosen by validation."""
