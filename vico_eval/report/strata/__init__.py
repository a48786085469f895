"""Breakdown of a row's losses by category, on hard documents, and by router score."""
