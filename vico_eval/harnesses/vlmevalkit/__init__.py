"""VLMEvalKit: the model that it asks, and its results."""
