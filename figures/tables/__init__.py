"""Markdown tables of the documentation, generated from the committed records.

    python -m figures.tables

rewrites docs/_tables/*.txt. A test compares the committed tables with what the committed records give.
"""
