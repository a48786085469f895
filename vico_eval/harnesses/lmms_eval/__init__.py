"""lmms-eval: the models that it asks, and its results."""
