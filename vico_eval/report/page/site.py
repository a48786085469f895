"""Write the page's folder: index.html, styles and scripts, data/ and pictures/.

Data files are scripts that register their content, because a page opened from a file may not fetch other files.
"""

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vico_eval.errors import OutputError
from vico_eval.report.page.folder import MARK, check_page_folder
from vico_eval.report.page.plots import axes, plots, row_styles, shares_of
from vico_eval.report.page.provenance import provenance
from vico_eval.report.page.samples import BenchmarkSamples, ReadSamples, read_samples
from vico_eval.report.page.scripts import as_json, as_script
from vico_eval.report.page.tables.downloads import downloads
from vico_eval.report.page.tables.endings import ending_heads, ending_rows
from vico_eval.report.page.tables.overview import page_columns, page_rows, paper_rows, with_known_costs
from vico_eval.report.page.tables.times import TIME_HEADS, time_notes, time_rows
from vico_eval.report.scores.counted import CountedRun
from vico_eval.report.staging import staged
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.tables.table import Table
from vico_eval.report.tables.writers import text_grid

SCRIPTS = (
    *("page.js", "state.js", "markers.js", "choose.js", "table.js", "downloads.js", "names.js", "plot.js"),
    *("pictures.js", "document.js", "filters.js", "search.js", "samples.js"),
)
"""Scripts in loading order."""

CHUNK_DOCUMENTS = 250
CHUNK_CHARACTERS = 2_000_000
"""Limits on a file of documents, whichever is reached first, so that long answers give more files and not larger
ones."""

STYLES = ("page.css", "tables.css", "plot.css", "samples.css", "document.css", "narrow.css")

INDEX = "index.html"

_ASSETS = Path(__file__).parent / "assets"

_PICTURE = re.compile(r"[0-9a-f]{2}/[0-9a-f]+-\d+\.jpg")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PageContent:
    """The parts of a report that a page shows."""

    table: Table
    """The report's table."""

    measured: Measurements
    """The measurements behind it."""

    read: ReadSamples
    """Reads a run's samples of a benchmark; called for one benchmark after the other."""

    previews: Mapping[int, Path]
    """Folders of the runs' image previews, by run number."""

    numbers: pd.DataFrame
    """Result of `vico_eval.report.tables.numbers.tidy_numbers`."""

    uncertainty: pd.DataFrame
    """Result of `vico_eval.report.stats.uncertainty.compare_with_baseline`."""

    loyalty: pd.DataFrame
    """Result of `vico_eval.report.stats.loyalty.loyalty`."""

    endings: pd.DataFrame
    """Result of `vico_eval.report.endings.counts.endings`."""

    runs: Sequence[CountedRun]
    """The runs, for their records."""

    times: pd.DataFrame | None = None
    """Result of `vico_eval.report.stats.times.document_times`."""

    costs: pd.DataFrame | None = None
    """Result of `vico_eval.report.costs.frame.document_costs`."""


def write_page(folder: Path, content: PageContent) -> Path:
    """Write the page of a report; the same report gives the same bytes.

    The folder is created if missing. An earlier page is replaced once the new one is complete, and unrelated files
    stay.

    Returns:
        The path of index.html.

    Raises:
        OutputError: the folder contains something else, or can't be written.
    """
    check_page_folder(folder)
    try:
        return _write(folder, content)
    except OSError as error:
        raise OutputError(
            f"The page can't be written to {folder}: {error}. Make room, or choose another folder."
        ) from error


def _write(folder: Path, content: PageContent) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    with staged(folder) as files:
        pictures = _write_files(files.place, content)
        index = folder / INDEX
        # Remove the index first and restore it last, so that an incomplete page can't be opened.
        index.unlink(missing_ok=True)
        for old in (folder / "data").glob("*.js"):
            old.unlink()
        _drop_other_pictures(folder, pictures)
        files.move_in(last=(INDEX,))
    return index


def _write_files(folder: Path, content: PageContent) -> set[str]:
    """Write the whole page to an empty folder, and return its images by path within it."""
    table = content.table
    (folder / "data").mkdir()
    styles = row_styles(table)
    rows = [row["title"] for row in styles]
    samples = read_samples(content.measured, content.read, content.previews, rows, table.columns, table.baseline)
    writer = _Documents(folder)
    benchmarks = [writer.add(each) for each in samples]
    writer.end_chunk()
    shares = shares_of(content.numbers, content.costs)
    report = {
        "baseline": table.baseline,
        "rows": styles,
        "axes": axes(shares),
        "plots": plots(table, content.numbers, content.uncertainty, shares),
        "benchmarks": benchmarks,
        "chunks": writer.starts,
        "hasPictures": bool(writer.pictures),
    }
    (folder / "data" / "report.js").write_bytes(as_script("report", report))
    for name in (*STYLES, *SCRIPTS, "start.js"):
        (folder / name).write_bytes((_ASSETS / name).read_bytes())
    _write_index(folder, content, rows)
    return writer.pictures


def _write_index(folder: Path, content: PageContent, titles: Sequence[str]) -> None:
    """Write index.html, and the score table for download."""
    table = with_known_costs(content.table, content.costs)
    columns = page_columns(table, content.table.costs)
    rows, published = page_rows(table, content.uncertainty, content.loyalty), paper_rows(table)
    notes = text_grid(table, has_margins=True).notes
    kept = downloads(table, columns, rows, published, text_grid(content.table, has_margins=True).notes[0])
    (folder / "data" / "table.js").write_bytes(as_script("table", kept))
    page = _template().render(
        table=table,
        columns=columns,
        rows=rows,
        paper_rows=published,
        notes=notes,
        num_documents=int(table.summary["documents"].max()),
        ending_heads=ending_heads(table),
        ending_rows=ending_rows(table, content.endings),
        time_heads=list(TIME_HEADS),
        time_rows=[] if content.times is None else time_rows(content.times, table.baseline),
        time_notes=[] if content.times is None else time_notes(content.times, table.baseline),
        provenance=provenance(content.runs, titles),
        styles=STYLES,
        scripts=(*SCRIPTS, "data/report.js", "data/table.js", "start.js"),
    )
    # A note may contain a lone surrogate, which can't be encoded.
    (folder / INDEX).write_bytes(page.encode("utf-8", errors="replace"))


def _drop_other_pictures(folder: Path, pictures: Collection[str]) -> None:
    """Remove images of an earlier page that this one doesn't use."""
    root = folder / "pictures"
    for path in sorted(root.glob("*/*.jpg")):
        name = path.relative_to(root).as_posix()
        if _PICTURE.fullmatch(name) and f"pictures/{name}" not in pictures:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


class _Documents:
    """Writes documents to chunks as they arrive, and copies their images."""

    def __init__(self, folder: Path) -> None:
        self.starts: list[int] = []
        """Number of each chunk's first document, counted over all benchmarks."""

        self.pictures: set[str] = set()
        """The page's images, by path within its folder."""

        self._folder = folder
        self._chunk: list[str] = []
        self._count = 0

    def add(self, samples: BenchmarkSamples) -> dict[str, Any]:
        """Write a benchmark's documents, and return the index of all of them."""
        for document, pictures in samples.documents():
            if not self._chunk:
                self.starts.append(self._count)
            self._chunk.append(as_json(document))
            self._count += 1
            for name, source in pictures.items():
                self._copy(name, source)
            if len(self._chunk) == CHUNK_DOCUMENTS or sum(map(len, self._chunk)) >= CHUNK_CHARACTERS:
                self.end_chunk()
        return samples.index()

    def end_chunk(self) -> None:
        """Write the documents added since the last chunk."""
        if self._chunk:
            name = f"documents-{len(self.starts) - 1}"
            text = f"vicoPage.register({as_json(name)}, [\n{','.join(self._chunk)}\n]);\n"
            (self._folder / "data" / f"{name}.js").write_bytes(text.encode("ascii"))
            self._chunk.clear()

    def _copy(self, name: str, source: Path) -> None:
        if name not in self.pictures:
            target = self._folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            self.pictures.add(name)


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html.j2")
