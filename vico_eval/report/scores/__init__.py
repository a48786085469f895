"""Scores on 0-100, by document and by benchmark, from a run's documents."""
