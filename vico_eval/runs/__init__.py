"""What a run leaves on disk: schemas, writing and reading. Imports no torch."""
