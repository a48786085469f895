"""A paper's numbers beside measured ones: which of its rows are a table's systems, and lines to print beneath them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.report.layout import PublishedRow, Table
from vico_eval.report.paper_tables import LAYOUTS
from vico_eval.report.published import PublishedTable, published_csv, published_dir, read_table, score
from vico_eval.report.tables import AVERAGE, relative_retention, with_average


@dataclass(frozen=True, slots=True)
class PaperModel:
    """A model of a paper's table."""

    table: PublishedTable
    model: str

    @property
    def place(self) -> str:
        """Where its numbers lie, beneath the repository's top."""
        layout = self.table.layout
        return (
            published_csv(published_dir(), layout.paper, layout.number)
            .relative_to(published_dir().parents[1])
            .as_posix()
        )

    def values(self, system: str, kind: str) -> dict[str, float]:
        """What the paper prints of a system, by benchmark, on 0-100: its scores or its ratios; empty where nothing."""
        layout = self.table.layout
        if system not in layout.rows_of:
            return {}
        wanted = {**layout.rows_of[system], layout.model_field: self.model}
        rows = [row for row in self.table.rows if row.kind == kind and wanted.items() <= row.fields.items()]
        return {key: score(number) for row in rows for key, number in row.numbers.items() if key != AVERAGE}


def find_model(table: str, model: str | None) -> PaperModel:
    """The model of a paper's table whose numbers can stand in a table of ours.

    Args:
        table: of ours, such as `vico-3`.
        model: as the paper names it; None where its table has only one.

    Raises:
        ConfigError: no paper has such a table with scores of our rows, or it has no such model or several.
    """
    layouts = {f"{layout.paper}-{layout.number}": layout for layout in LAYOUTS if layout.rows_of}
    if table not in layouts:
        raise ConfigError(
            f"No paper prints scores of the table `{table}`, so there are none to stand beside the measured ones. "
            f"Tables that a paper has: {', '.join(layouts)}."
        )
    printed = read_table(published_dir(), layouts[table])
    wanted = printed.layout.rows_of.values()
    models = dict.fromkeys(
        row.fields[printed.layout.model_field]
        for row in printed.rows
        if any(fields.items() <= row.fields.items() for fields in wanted)
    )
    if model is None and len(models) > 1:
        raise ConfigError(f"{printed.layout.title} has several models. Give one of {', '.join(models)}.")
    if model is not None and model not in models:
        raise unknown_name("model", model, models, where=printed.layout.title)
    return PaperModel(printed, model or next(iter(models)))


def with_published(table: Table, systems: Mapping[str, str], paper: PaperModel) -> Table:
    """The table with a paper's row beneath each measured one; of dashes where the paper has none.

    Averages are recomputed over the table's columns, relative to the paper's own row of the baseline's system.

    Args:
        table: of measured numbers.
        systems: each row's system by row title.
        paper: where the numbers come from.
    """
    scores, ratios = (
        pd.DataFrame(
            {title: paper.values(systems[title], kind) for title in table.summary.index}, index=list(table.columns)
        ).T.astype(float)
        for kind in ("score", "ratio")
    )
    retention = relative_retention(scores, table.baseline)
    differences = table.summary["mean_score"] - scores.mean(axis="columns", skipna=False)
    averages = with_average(ratios)
    rows = []
    for title in table.summary.index:
        values = {str(column): float(value) for column, value in scores.loc[title].items()}
        rows.append(
            PublishedRow(
                title=title,
                kind="score",
                values={**values, AVERAGE: float(retention[title])},
                difference=float(differences[title]),
            )
        )
        if ratios.loc[title].notna().any():
            shares = {str(column): float(value) for column, value in averages.loc[title].items()}
            rows.append(PublishedRow(title=title, kind="ratio", values=shares))
    divided = ", MME divided by 28" if "MME" in table.columns else ""
    note = (
        f"Lines marked (paper): {paper.table.layout.title}, {paper.model}, as printed{divided}. Nothing there was "
        "measured here; checkpoints, prompts and scorers may differ from those of the runs. Averages are recomputed "
        f"over the columns shown, relative to the paper's {table.baseline}."
    )
    return replace(table, published=tuple(rows), published_place=paper.place).with_note(note)
