"""Evaluation toolkits: translation between their interfaces and the engine's requests, and readers of their results."""
