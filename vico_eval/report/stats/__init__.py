"""Comparison of rows: retention and its uncertainty, agreement with the baseline, and comparability of runs."""
