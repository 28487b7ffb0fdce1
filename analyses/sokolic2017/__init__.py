"""Sokolic, Giryes, Sapiro, Rodrigues 2017, "Robust Large Margin Deep Neural Networks" (S17)."""
