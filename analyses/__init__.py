"""One folder a paper, one script a table or figure: each measures and writes a record; figures/ draws them."""
