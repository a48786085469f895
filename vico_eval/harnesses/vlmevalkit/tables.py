"""VLMEvalKit's tables: a data set's predictions and each document's score, as .tsv or .xlsx.

Format: ms-vlmeval 0.0.20. Its default is .xlsx, whose cells hold at most 32,767 characters; PRED_FORMAT=tsv selects
.tsv.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from vico_eval.errors import ReportError

if TYPE_CHECKING:
    import pandas as pd

FAILED = "Failed to obtain answer"
"""VLMEvalKit's text for a failed answer, which it scores."""

_END_OF_THOUGHT = "</think>"

_SCORES = (("_{judge}_result", "hit"), ("_auxmatch", "score"), ("_results", "eval_score"), ("_score", "score"))
"""Suffixes of the files with documents' scores and their column: multiple choice, yes or no, short answers, videos."""

_MADE_FROM = ("extracted", "eval_match")
"""Columns of those files for scores that aren't means over documents."""

_AS_TSV = "repeat VLMEvalKit's command with PRED_FORMAT=tsv in the environment"


def prediction_table(path: Path) -> pd.DataFrame:
    """Read a data set's predictions, one row per document, with all cells as text, because `None` and `NA` are answers.

    Raises:
        ReportError: the file is missing, unreadable or truncated, or contains a document twice.
    """
    table = _read(path)
    if "prediction" not in table:
        raise ReportError(f"{path} has no column `prediction`; expected a file of VLMEvalKit.")
    if table.empty:
        raise ReportError(f"{path} has no documents. Remove it and {_AS_TSV}.")
    if table["index"].duplicated().any():
        twice = ", ".join(table.loc[table["index"].duplicated(), "index"].unique()[:10])
        raise ReportError(f"{path} has more than one row of document {twice}; expected one. Remove it and {_AS_TSV}.")
    return table


def scored_fields(predictions: Path, judge: str, documents: Sequence[str]) -> dict[str, dict[str, str | float]]:
    """Read each document's `score`, 0-1, and the fields that its data set's score is computed from, by index; empty if
    VLMEvalKit writes none.

    Args:
        predictions: the file of predictions, which the scores are beside.
        judge: the judge's name, which is part of some files' names.
        documents: indices of the documents with predictions.

    Raises:
        ReportError: a file is unreadable or has other documents.
    """
    for ending, column in _SCORES:
        path = predictions.with_name(f"{predictions.stem}{ending.format(judge=judge)}{predictions.suffix}")
        if not path.is_file() or column not in (table := _read(path)):
            continue
        # Some may lack one: circular questions have one score for all rotations.
        if others := sorted(set(table["index"]) - set(documents)):
            raise ReportError(
                f"{path} has scores of documents that {predictions.name} has no answers to: {', '.join(others[:10])}. "
                "The two files are of different runs; remove both and repeat VLMEvalKit's command."
            )
        scores = [_number(value, path) for value in table[column]]
        kept = [name for name in _MADE_FROM if name in table]
        fields = table[kept].assign(score=scores).to_dict("records")
        return dict(zip(table["index"], fields, strict=True))
    return {}


def is_prediction_of(prediction: str, text: str) -> bool:
    """Return whether a prediction is VLMEvalKit's version of a model's answer, which omits its thoughts."""
    return prediction == text or (_END_OF_THOUGHT in text and prediction == text.rpartition(_END_OF_THOUGHT)[2].strip())


def column_of(table: pd.DataFrame, name: str) -> Sequence[str]:
    """Return a column's cells; blank ones if the table lacks it."""
    return list(table[name]) if name in table else [""] * len(table)


def _read(path: Path) -> pd.DataFrame:
    # Imported here, because it would double the start-up time of reading lmms-eval's runs.
    import pandas as pd

    try:
        if path.suffix == ".tsv":
            if not path.read_bytes().endswith(b"\n"):  # pandas would read a truncated row as blank cells
                raise ReportError(f"{path} is truncated inside its last row. Remove it and repeat the command.")
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        elif path.suffix == ".xlsx":
            table = pd.read_excel(path, dtype=str, keep_default_na=False, engine="openpyxl")
        else:
            raise ReportError(f"{path} has a format that the report can't read, only .tsv and .xlsx; {_AS_TSV}.")
    except ImportError as error:
        raise ReportError(f"{path} is a spreadsheet: pip install openpyxl to have it read, or {_AS_TSV}.") from error
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ReportError(f"{path} can't be read: {error}. Remove it and repeat the command.") from error
    if "index" not in table:
        raise ReportError(f"{path} has no column `index`; expected a file of VLMEvalKit.")
    return table


def _number(text: str, path: Path) -> float:
    try:
        return {"True": 1.0, "False": 0.0}[text] if text in ("True", "False") else float(text)
    except ValueError as error:
        raise ReportError(f"{path}: a document's score is {text!r}; expected a number.") from error
