"""One script a figure: reads records, draws; out/ holds the pictures."""
