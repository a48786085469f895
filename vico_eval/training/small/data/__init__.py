"""Documents of the built-in benchmark as batches."""
