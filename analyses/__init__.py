"""Reproductions: one folder per paper, one script per table or figure."""
