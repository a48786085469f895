"""What others take away from a report: every document's scores, and a model card's results."""
