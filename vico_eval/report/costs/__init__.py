"""What a row costs beside what it scores: operations, cache and time of a document."""
