"""The papers' numbers as tables, with their averages recomputed from the printed scores."""

from pathlib import Path

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.paths import results_dir
from vico_eval.report.layout import Row, Table
from vico_eval.report.tables import AVERAGE, relative_retention, with_average

_COLUMNS = ("table", "model", "variant", "benchmark", "setting", "metric", "value", "unit", "note")
_MME_SCALE = 1 / 28


def published_csv(paper: str, number: int) -> Path:
    """Where the numbers of a paper's table lie, such as `published_csv("vico", 3)`."""
    return results_dir() / "published" / paper / f"table{number}.csv"


def read_published(path: Path) -> pd.DataFrame:
    """A published table's printed numbers, one a line; `benchmark` includes the setting, such as `with subtitles`.

    Raises:
        ReportError: the file can't be read or has other columns.
    """
    try:
        printed = pd.read_csv(path, keep_default_na=False)
        printed["value"] = pd.to_numeric(printed["value"])
    except (OSError, ValueError, KeyError) as error:
        raise ReportError(f"{path} can't be read as a published table: {error}.") from error
    if tuple(printed.columns) != _COLUMNS:
        raise ReportError(f"{path} has the columns {', '.join(printed.columns)}; expected {', '.join(_COLUMNS)}.")
    printed["benchmark"] = (printed["benchmark"] + " " + printed["setting"]).str.strip()
    return printed


def printed_values(printed: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Printed values of `metric` as variants x benchmarks, averages left out, MME divided by 28."""
    own = printed[(printed["metric"] == metric) & (printed["benchmark"] != "Avg")]
    values = own.pivot(index="variant", columns="benchmark", values="value")
    values = values.reindex(index=own["variant"].unique(), columns=own["benchmark"].unique())
    if metric == "score" and "MME" in values:
        values["MME"] *= _MME_SCALE
    return values


def printed_averages(printed: pd.DataFrame, metric: str) -> pd.Series:
    """The averages that the paper prints for `metric` (`relative_average` or `compressed_ratio`), by variant."""
    own = printed[(printed["metric"] == metric) & (printed["benchmark"] == "Avg")]
    return own.set_index("variant")["value"]


def published_table(path: Path, *, baseline: str, caption: str, model: str | None = None) -> Table:
    """A published table of one model, its averages recomputed: ratio of means for scores, plain mean for ratios.

    Args:
        path: a CSV of `results/published`.
        baseline: variant that counts as 100.
        caption: printed above the table.
        model: which of the table's models; may be left out where there is only one.

    Raises:
        ReportError: the file is malformed, or the model or the baseline isn't in it.
    """
    printed = read_published(path)
    models = list(printed["model"].unique())
    if model is None and len(models) == 1:
        model = models[0]
    if model not in models:
        raise ReportError(f"{path} has no model {model!r}; expected one of {', '.join(models)}.")
    printed = printed[printed["model"] == model]
    scores = printed_values(printed, "score")
    scores = scores.assign(**{AVERAGE: relative_retention(scores, baseline)})
    ratios = with_average(printed_values(printed, "compressed_ratio"))
    rows = []
    for title in scores.index:
        rows.append(Row(title=title, kind="score", values=dict(scores.loc[title]), competes=title != baseline))
        if title in ratios.index:
            rows.append(Row(title=title, kind="ratio", values=dict(ratios.loc[title]), competes=False))
    columns = tuple(column for column in scores.columns if column != AVERAGE)
    return Table(
        caption=caption,
        columns=columns,
        digits=dict.fromkeys(columns, 1),
        rows=tuple(rows),
        baseline=baseline,
        notes=(f"Scores as printed for {model}; {AVERAGE} recomputed from them.",),
        summary=pd.DataFrame(),
    )
