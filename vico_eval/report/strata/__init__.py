"""Where a row loses: scores by category, on hard documents, and against what its router said of them."""
