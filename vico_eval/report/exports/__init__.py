"""Exports of a report: every document's scores, and results for model cards."""
