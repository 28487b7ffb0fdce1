"""Figures drawn from records, one script each; out/ holds the images."""
