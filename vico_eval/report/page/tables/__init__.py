"""The tables of the page: rows of cells as a reader sees them, made from what the report computed."""
