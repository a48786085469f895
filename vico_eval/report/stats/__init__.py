"""Comparing rows: retention, its uncertainty, agreement with the baseline, and whether runs can be compared at all."""
