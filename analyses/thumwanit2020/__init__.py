"""Reproductions of Thumwanit (2020), "Study of noise injection and gradient regularization"."""
