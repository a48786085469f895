"""How `vico-eval --help` lists the commands: in groups, by what they are for."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

EVALUATE, REPORT, TRAIN, MEASURE, INSPECT = GROUPS = ("Evaluate", "Report", "Train", "Measure", "Inspect")
"""In the order of the help."""


class GroupedCommands(TyperGroup):
    """Lists commands under the titles that they were registered with (`rich_help_panel`).

    Typer itself groups commands only in its boxed help, which fills the width of a terminal and does not suit a log.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group, with one column of descriptions over all groups."""
        longest = max(map(len, self.commands))
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in GROUPS}
        for name, command in self.commands.items():
            text = command.get_short_help_str(formatter.width - 6 - longest)
            assert isinstance(command, TyperCommand | TyperGroup)
            groups[command.rich_help_panel or INSPECT].append((f"{name:<{longest}}", text))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)
