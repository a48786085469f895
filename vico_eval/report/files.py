"""The files of a report: their names, and which of them a report has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vico_eval.report.figures.draw import PICTURES
from vico_eval.report.frames import BUDGETS, COSTS, LOYALTY, OPTIONAL, PAIRS, ROUTER, STRATA, TIMES, UNCERTAINTY
from vico_eval.report.tables.table import Table

PROVENANCE = "provenance.json"
"""A folder with this file is a report's."""

ENDINGS = "endings.csv"

DOCUMENTS = "documents.parquet"
MODEL_INDEX = "model-index.yaml"
"""Both are written only on request."""

STRATA_TABLES = ("strata.md", "strata.tex")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A written report."""

    table: Table
    csv: Path
    latex: Path
    markdown: Path
    uncertainty: Path
    loyalty: Path
    endings: Path
    provenance: Path
    figures: tuple[Path, ...]
    """PDF and PNG of each figure. If the retention figure is missing, a note below the table gives the reason."""

    times: Path | None = None
    """Times of the rows' answers; None if no run has times."""

    budgets: Path | None = None
    """Budgets at which each method falls below 99% and 95%; None if no method was run at several budgets."""

    costs: Path | None = None
    """Costs per document in each row; None if no run has costs."""

    pairs: Path | None = None
    """Comparisons between rows; None unless requested."""

    strata: tuple[Path, ...] = ()
    """Scores by category and on hard documents, as CSV, Markdown and LaTeX; empty without either."""

    router: Path | None = None
    """Router scores against the loss from compression; None without a router or a row that compresses every tile."""

    documents: Path | None = None
    """Every document's scores as Parquet; None unless requested."""

    model_index: Path | None = None
    """The rows as results for model cards; None unless requested."""

    html: Path | None = None
    """The page's index.html; None unless requested."""

    removed: tuple[Path, ...] = ()
    """Files of an earlier report that this report replaces with nothing."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All written files."""
        maybe = (self.times, self.pairs, self.budgets, self.costs, *self.strata, self.router)
        some = tuple(path for path in (*maybe, self.documents, self.model_index) if path is not None)
        page = () if self.html is None else (self.html,)
        tables = (self.csv, self.latex, self.markdown, self.uncertainty, self.loyalty, self.endings, *some)
        return (*tables, *self.figures, self.provenance, *page)


def written_report(table: Table, out: Path, stem: str, names: Sequence[str]) -> Report:
    """Build the `Report` for the files named `names` in `out`; the page is added separately.

    Args:
        table: the report's table.
        out: the report's folder.
        stem: name of the table's files, without the suffix.
        names: names of all written files.
    """

    def path(name: str) -> Path | None:
        return out / name if name in names else None

    return Report(
        table=table,
        csv=out / f"{stem}.csv",
        latex=out / f"{stem}.tex",
        markdown=out / f"{stem}.md",
        uncertainty=out / UNCERTAINTY,
        loyalty=out / LOYALTY,
        endings=out / ENDINGS,
        provenance=out / PROVENANCE,
        times=path(TIMES),
        budgets=path(BUDGETS),
        costs=path(COSTS),
        pairs=path(PAIRS),
        strata=tuple(out / name for name in (STRATA, *STRATA_TABLES) if name in names),
        router=path(ROUTER),
        documents=path(DOCUMENTS),
        model_index=path(MODEL_INDEX),
        figures=tuple(out / name for name in names if name in PICTURES),
    )


def left_by_earlier(report: Report) -> tuple[Path, ...]:
    """Files left by an earlier report that this report does not write and that could be mistaken for its own."""
    if not report.provenance.is_file():
        return ()
    others = (*PICTURES, *OPTIONAL, *STRATA_TABLES, DOCUMENTS, MODEL_INDEX)
    places = [report.provenance.with_name(name) for name in others]
    return tuple(place for place in places if place not in report.paths and place.is_file())
