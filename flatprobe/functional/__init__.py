"""Losses, margins and Jacobian norms: a batch in, one value per sample out."""
