"""Decoder layers whose tokens may change in between, and their caches, for all families."""
