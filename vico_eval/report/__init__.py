"""Finished runs and published numbers -> retention, tables and figures. Imports no torch."""

from vico_eval.report.build import Report, write_report
from vico_eval.report.writers import to_terminal

__all__ = ["Report", "to_terminal", "write_report"]
