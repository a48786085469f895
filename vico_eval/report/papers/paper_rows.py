"""A paper's numbers beside measured ones: which of its rows are a table's systems, and lines to print beneath them."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.report.papers.layout import layouts, published_dir
from vico_eval.report.papers.printed import PublishedTable, differs, published_csv, read_table, score
from vico_eval.report.stats.retention import AVERAGE, relative_retention, with_average
from vico_eval.report.tables.grid import OTHERWISE
from vico_eval.report.tables.table import AVERAGE_DIGITS, PublishedRow, Table


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

    @property
    def title(self) -> str:
        """Table and model."""
        field = self.table.layout.model_field
        return f"{self.table.layout.title}, {'' if field == 'model' else f'{field} '}{self.model}"

    def values(self, system: str, kind: str) -> dict[str, float]:
        """What the paper prints of a system, by benchmark and `Avg.`: its scores on 0-100, or its ratios; empty where
        nothing."""
        layout = self.table.layout
        if system not in layout.rows_of:
            return {}
        rows = [
            row
            for row in self.table.rows
            if row.kind == kind
            and layout.rows_of[system].items() <= row.fields.items()
            and row.fields.get(layout.model_field, self.model) == self.model
        ]
        return {key: score(number) for row in rows for key, number in row.numbers.items()}

    def prints_average_of(self, columns: Collection[str], baseline: str, kind: str) -> bool:
        """Whether its average is that of a measured table: of the same columns, and scores relative to the same row.

        Args:
            columns: the table's benchmarks.
            baseline: the system of the row that counts as 100%.
            kind: of scores or of ratios, which are relative to nothing.
        """
        layout = self.table.layout
        if layout.average is None or set(columns) != set(layout.average.benchmarks):
            return False
        relative_to = {"variant": layout.average.baseline}
        return kind == "ratio" or layout.rows_of.get(baseline) == relative_to


def find_model(table: str, model: str | None) -> PaperModel:
    """The model of a paper's table whose numbers can stand in a table of ours.

    Args:
        table: of ours, such as `vico-3`.
        model: as the paper names it; None where its table has only one.

    Raises:
        ConfigError: no paper has such a table with scores of our rows, or it has no such model or several.
    """
    known = {f"{layout.paper}-{layout.number}": layout for layout in layouts() if layout.rows_of}
    if table not in known:
        raise ConfigError(
            f"No paper prints scores of the table `{table}`, so there are none to stand beside the measured ones. "
            f"Tables that a paper has: {', '.join(known)}."
        )
    printed = read_table(published_dir(), known[table])
    wanted = printed.layout.rows_of.values()
    models = dict.fromkeys(
        row.fields[printed.layout.model_field]
        for row in printed.rows
        if printed.layout.model_field in row.fields and any(fields.items() <= row.fields.items() for fields in wanted)
    )
    if model is None and len(models) > 1:
        kind = "models" if printed.layout.model_field in ("model", "LLM") else f"rows by {printed.layout.model_field}"
        raise ConfigError(f"{printed.layout.title} has several {kind}. Give one of {', '.join(models)}.")
    if model is not None and model not in models:
        raise unknown_name("model", model, models, where=printed.layout.title)
    return PaperModel(printed, model or next(iter(models)))


def with_published(table: Table, systems: Mapping[str, str], paper: PaperModel) -> Table:
    """The table with a paper's row beneath each measured one; of dashes where the paper has none.

    Averages are the paper's own where they are of the table's columns, and marked where its cells make others. Of other
    columns they are recomputed, relative to the paper's own row of the baseline's system.

    Args:
        table: of measured numbers.
        systems: each row's system by row title.
        paper: where the numbers come from.
    """
    titles, columns = list(table.summary.index), list(table.columns)
    scores, ratios = (
        pd.DataFrame({title: paper.values(systems[title], kind) for title in titles}, index=[*columns, AVERAGE])
        .astype(float)
        .T
        for kind in ("score", "ratio")
    )
    retention = relative_retention(scores[columns], table.baseline)
    differences = table.summary["mean_score"] - scores[columns].mean(axis="columns", skipna=False)
    is_own, is_own_ratio = (
        paper.prints_average_of(columns, systems[table.baseline], kind) for kind in ("score", "ratio")
    )
    averages = with_average(ratios[columns])[AVERAGE]
    rows = []
    for title in titles:
        values = _with_one_average(scores.loc[title], retention[title], is_own)
        is_known = not (math.isnan(values[AVERAGE]) or math.isnan(retention[title]))
        is_other = is_known and differs(values[AVERAGE], retention[title], AVERAGE_DIGITS)
        rows.append(
            PublishedRow(
                title=title,
                kind="score",
                values=values,
                recomputed=float(retention[title]) if is_other else math.nan,
                difference=float(differences[title]),
            )
        )
        if ratios.loc[title, columns].notna().any():
            shares = _with_one_average(ratios.loc[title], averages[title], is_own_ratio)
            rows.append(PublishedRow(title=title, kind="ratio", values=shares))
    note = _note(table, paper, is_own, rows)
    return replace(table, published=tuple(rows), published_place=paper.place).with_note(note)


def _with_one_average(printed: pd.Series, recomputed: float, is_own: bool) -> dict[str, float]:
    """A row's values by column, with the average that is printed or the one that is recomputed."""
    values = {str(column): float(value) for column, value in printed.items()}
    return values if is_own else {**values, AVERAGE: float(recomputed)}


def _note(table: Table, paper: PaperModel, is_own: bool, rows: Sequence[PublishedRow]) -> str:
    divided = ", MME divided by 28" if "MME" in table.columns else ""
    text = (
        f"Lines marked (paper): {paper.title}, as printed{divided}. Nothing there was "
        "measured here; checkpoints, prompts and scorers may differ from those of the runs."
    )
    if not is_own:
        return f"{text} Averages are recomputed over the columns shown, relative to the paper's {table.baseline}."
    average = paper.table.layout.average
    if average is not None and average.stated:
        text = f"{text} Averages of these lines are {average.stated}."
    made = "; ".join(
        f"{row.title} {row.recomputed:.{AVERAGE_DIGITS + 1}f}%" for row in rows if not math.isnan(row.recomputed)
    )
    return f"{text} {OTHERWISE} The cells of the line make another average: {made}." if made else text
