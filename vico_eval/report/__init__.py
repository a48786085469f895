"""Reports: retention, tables and figures from finished runs and published numbers. Imports no torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vico_eval.report.build import write_report
    from vico_eval.report.files import Report
    from vico_eval.report.tables.writers import to_terminal

__all__ = ["Report", "to_terminal", "write_report"]


def __getattr__(name: str) -> Any:
    # Worker processes that only read runs start twice as fast without pandas.
    if name == "to_terminal":
        from vico_eval.report.tables.writers import to_terminal

        return to_terminal
    if name in __all__:
        from vico_eval.report import build

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
