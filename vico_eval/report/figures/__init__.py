"""Figures of a table, a file each."""
