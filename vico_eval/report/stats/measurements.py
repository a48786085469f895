"""What the runs of a table measured: a frame with a line a run and benchmark, and the documents of each benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from vico_eval.report.scores.by_document import DocumentScores
from vico_eval.report.scores.clusters import Together
from vico_eval.report.scores.counted import CountedDocuments


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Documents:
    """A benchmark's documents, which all its runs answered in the same order, by the runs' numbers."""

    tasks: Mapping[str, int]
    """Its tasks, in order, with their number of documents."""

    runs: Mapping[int, CountedDocuments]
    """What each run says of them."""

    @property
    def number(self) -> int:
        """Of documents."""
        return sum(self.tasks.values())

    @property
    def scored(self) -> DocumentScores | None:
        """Of the first run that has them: how documents are scored together is the same in all."""
        return next((run.scored for run in self.runs.values() if run.scored is not None), None)

    @property
    def categories(self) -> Sequence[str] | None:
        """[documents], of the first run that has them; None where none has."""
        return next((run.categories for run in self.runs.values() if run.categories is not None), None)

    @property
    def knows_pictures(self) -> bool:
        """Whether some run says which documents share a picture; otherwise a cluster is what is scored together."""
        return any(None not in run.media for run in self.runs.values())

    @property
    def together(self) -> Together:
        """Which of them say something together."""
        units = range(self.number) if self.scored is None else self.scored.units.tolist()
        return Together(units, (run.media for run in self.runs.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What the runs of a table measured, unrounded.

    `cells` has the columns row, method (the row's title less its budget), run (a number), benchmark, score (0-100; NaN
    where a document failed), documents (their number), num_available, without_account (their number), failed (their
    number), failure (the first one's reason), source, results, samples, has_record (whether the run left one),
    threshold (the absolute one of a router that the run's record has; NaN without), asked_share (percent of the visual
    tokens that the run was asked to leave; NaN where it wasn't), scores (ScoreCounts of the router; None unless every
    document has them), answered, ends_known, truncated and looping (`vico_eval.report.endings.counts`), and the summed
    token counts tiles, compressed_tiles, visual_tokens, visual_tokens_uncompressed, layer_tokens (visual tokens of a
    layer, mean over layers), which are NaN unless every document has an account.
    """

    cells: pd.DataFrame
    documents: Mapping[str, Documents]
    """By benchmark, those that were run."""

    values: Mapping[str, pd.DataFrame]
    """By benchmark, what its documents add to each row's score (`vico_eval.report.scores.by_document`): documents x
    rows, the mean over a row's runs; NaN where one has none. The index has each document's cluster, by which two
    benchmarks' documents may belong together. Every paired statistic is computed from these."""

    notes: tuple[str, ...]
