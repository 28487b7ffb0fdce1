"""Reproductions of Oberman (2020), "Partial differential equation regularization for supervised machine learning"."""
