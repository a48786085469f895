"""Generated documents like those of the built-in benchmark, in batches."""
