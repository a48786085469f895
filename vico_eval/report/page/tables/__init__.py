"""The page's tables: rows of formatted cells, from the report's results."""
