"""The files of a report: what each is called, and which of them a report has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vico_eval.report.figures.draw import PICTURES
from vico_eval.report.frames import BUDGETS, COSTS, LOYALTY, OPTIONAL, PAIRS, ROUTER, STRATA, TIMES, UNCERTAINTY
from vico_eval.report.tables.table import Table

PROVENANCE = "provenance.json"
"""By this file of its a report's folder is known."""

ENDINGS = "endings.csv"

DOCUMENTS = "documents.parquet"
MODEL_INDEX = "model-index.yaml"
"""Both are written where they are asked for."""

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
    """PDF and PNG of each. Without that of retention a note of the table says why."""

    times: Path | None = None
    """What the rows' answers took; None if no run has times."""

    budgets: Path | None = None
    """Where each method falls below 99% and 95%; None if none was run at several budgets."""

    costs: Path | None = None
    """What the rows' documents cost; None if no run says it."""

    pairs: Path | None = None
    """Rows against rows, where that was asked for."""

    strata: tuple[Path, ...] = ()
    """Scores by category and on hard documents, as CSV, Markdown and LaTeX; empty if there is neither."""

    router: Path | None = None
    """A router's scores against what compressing costs; None without a router or a row that compresses every tile."""

    documents: Path | None = None
    """Every document's scores as Parquet, where that was asked for."""

    model_index: Path | None = None
    """The rows as results of model cards, where that was asked for."""

    html: Path | None = None
    """index.html of the page, where one was asked for."""

    removed: tuple[Path, ...] = ()
    """An earlier report's files, of which this one has none."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file written."""
        maybe = (self.times, self.pairs, self.budgets, self.costs, *self.strata, self.router)
        some = tuple(path for path in (*maybe, self.documents, self.model_index) if path is not None)
        page = () if self.html is None else (self.html,)
        tables = (self.csv, self.latex, self.markdown, self.uncertainty, self.loyalty, self.endings, *some)
        return (*tables, *self.figures, self.provenance, *page)


def written_report(table: Table, out: Path, stem: str, names: Sequence[str]) -> Report:
    """The report in `out` whose files, but for the page, have these names.

    Args:
        table: its table.
        out: its folder.
        stem: of the table's files.
        names: of all that is written.
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
    """An earlier report's files that would seem to be this one's, which has none of these names."""
    if not report.provenance.is_file():
        return ()
    others = (*PICTURES, *OPTIONAL, *STRATA_TABLES, DOCUMENTS, MODEL_INDEX)
    places = [report.provenance.with_name(name) for name in others]
    return tuple(place for place in places if place not in report.paths and place.is_file())
