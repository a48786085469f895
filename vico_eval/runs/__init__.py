"""A run's files on disk: schemas, writers and readers. Imports no torch."""
