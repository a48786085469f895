"""lmms-eval: our models for it, and its results."""
