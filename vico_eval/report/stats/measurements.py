"""Measurements behind a table: a frame with one line per run and benchmark, and the documents of each benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from vico_eval.report.scores.by_document import DocumentScores
from vico_eval.report.scores.clusters import Together
from vico_eval.report.scores.counted import CountedDocuments


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Documents:
    """A benchmark's documents, which are in the same order in all runs."""

    tasks: Mapping[str, int]
    """The benchmark's tasks, in order, with their numbers of documents."""

    runs: Mapping[int, CountedDocuments]
    """Each run's data for the documents, by run number."""

    @property
    def number(self) -> int:
        """Number of documents."""
        return sum(self.tasks.values())

    @property
    def scored(self) -> DocumentScores | None:
        """Scores of the first run that has them; units and strata are the same in all runs."""
        return next((run.scored for run in self.runs.values() if run.scored is not None), None)

    @property
    def categories(self) -> Sequence[str] | None:
        """[documents], categories of the first run that has them; None if no run has."""
        return next((run.categories for run in self.runs.values() if run.categories is not None), None)

    @property
    def knows_pictures(self) -> bool:
        """True if a run records which documents share an image; otherwise clusters contain only documents scored
        together."""
        return any(None not in run.media for run in self.runs.values())

    @property
    def together(self) -> Together:
        """The links between documents, for clustering."""
        units = range(self.number) if self.scored is None else self.scored.units.tolist()
        return Together(units, (run.media for run in self.runs.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """Unrounded measurements of a table's runs.

    `cells` has the columns row, method (the row's title without its budget), run (a number), benchmark, score (0-100;
    NaN if a document failed), documents (their number), num_available, without_account (number of documents), failed
    (number of documents), failure (reason of the first), source, results, samples, has_record (the run has its own
    record), threshold (absolute threshold of the router in the run's record; NaN without), asked_share (percentage of
    visual tokens that the run was asked to keep; NaN without), scores (ScoreCounts of the router; None unless every
    document has them), answered, ends_known, truncated and looping (`vico_eval.report.endings.counts`), and the summed
    token counts tiles, compressed_tiles, visual_tokens, visual_tokens_uncompressed, layer_tokens (visual tokens of a
    layer, mean over layers), which are NaN unless every document has an account.
    """

    cells: pd.DataFrame
    documents: Mapping[str, Documents]
    """Documents of the benchmarks that were run, by benchmark."""

    values: Mapping[str, pd.DataFrame]
    """Contributions of the documents to each row's score (`vico_eval.report.scores.by_document`), by benchmark:
    documents x rows, mean over a row's runs; NaN if a run has none. The index has each document's cluster, which can
    span benchmarks. All paired statistics are computed from these."""

    notes: tuple[str, ...]
