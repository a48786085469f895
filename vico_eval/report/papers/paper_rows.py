"""Show a paper's numbers with measured ones: match its rows to a table's systems, and add them below."""

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
    """A model in a paper's table."""

    table: PublishedTable
    model: str

    @property
    def place(self) -> str:
        """Path of its numbers, relative to the repository's root."""
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
        """The paper's numbers for a system, by benchmark and `Avg.`: scores on 0-100, or ratios; empty if there are
        none."""
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
        """True if the paper's average is defined as in a measured table: same columns, and for scores the same
        baseline.

        Args:
            columns: the table's benchmarks.
            baseline: the system of the row that counts as 100%.
            kind: `score` or `ratio`; ratios have no baseline.
        """
        layout = self.table.layout
        if layout.average is None or set(columns) != set(layout.average.benchmarks):
            return False
        relative_to = {"variant": layout.average.baseline}
        return kind == "ratio" or layout.rows_of.get(baseline) == relative_to


def find_model(table: str, model: str | None) -> PaperModel:
    """Find the model in a paper's table whose numbers can be added to one of our tables.

    Args:
        table: name of our table, such as `vico-3`.
        model: the paper's name for the model; None if its table has only one.

    Raises:
        ConfigError: no paper has such a table with scores for our rows, the model is unknown, or it must be chosen.
    """
    known = {f"{layout.paper}-{layout.number}": layout for layout in layouts() if layout.rows_of}
    if table not in known:
        raise ConfigError(
            f"No paper prints scores of the table `{table}`, so none can be added to the measured ones. "
            f"Tables with published scores: {', '.join(known)}."
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
    """Add a paper's row below each measured one, with dashes if the paper has none.

    Averages are the paper's own if they cover the table's columns, and are marked if its cells give a different value.
    For other columns they are recomputed, relative to the paper's row for the baseline's system.

    Args:
        table: the table of measured scores.
        systems: each row's system by row title.
        paper: source of the numbers.
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
    """A row's values by column, with either the printed or the recomputed average."""
    values = {str(column): float(value) for column, value in printed.items()}
    return values if is_own else {**values, AVERAGE: float(recomputed)}


def _note(table: Table, paper: PaperModel, is_own: bool, rows: Sequence[PublishedRow]) -> str:
    divided = ", MME divided by 28" if "MME" in table.columns else ""
    text = (
        f"Lines marked (paper) are from {paper.title}, as printed{divided}. They were not "
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
    return f"{text} {OTHERWISE} The line's cells give another average: {made}." if made else text
