"""How far two runs of the same documents agree: answers, scores, token accounts, and what their records differ in."""
