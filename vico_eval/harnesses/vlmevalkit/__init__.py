"""VLMEvalKit: our models for it, and its results."""
