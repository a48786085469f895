"""Detection of truncated answers and of repetition loops."""
