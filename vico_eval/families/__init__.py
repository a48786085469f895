"""Families of checkpoints: loading, visual tokens and decoding. Imports no method."""
