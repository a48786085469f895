"""Costs of a row per document: operations, cache size and time."""
