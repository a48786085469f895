"""Figures for a table."""
