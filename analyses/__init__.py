"""Reproductions: one folder per paper, one script per table or figure, each of which writes a record."""
