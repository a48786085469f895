"""Agreement of two runs on the same documents: answers, scores, token accounts, and differences between their
records."""
