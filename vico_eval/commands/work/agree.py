"""`vico-eval agree`: two runs of the same documents side by side, or the runs of two folders, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from vico_eval.commands.output import message_console, print_json, results_console
from vico_eval.errors import ReportError
from vico_eval.paths import models_dir
from vico_eval.report.agreement.compare import Comparison, compare_runs
from vico_eval.report.agreement.partings import Encode
from vico_eval.report.agreement.writers import to_records, to_terminal, write_agreement
from vico_eval.runs.folders import check_folder, runs_below
from vico_eval.runs.read import read_record


def print_agreement(
    first: Path,
    second: Path,
    *,
    out: Path | None,
    num_examples: int,
    require_equal: bool = False,
    as_json: bool = False,
) -> None:
    """Print how far runs agree and, if `out` is given, write it there.

    Args:
        first: a run's folder, or a folder of runs.
        second: like `first`; runs in two folders are paired by their relative paths.
        out: folder of agreement.csv, .md and .json; created if missing.
        num_examples: number of documents with different answers to show per pair.
        require_equal: treat a difference as an error.
        as_json: print the entries of agreement.json, with paths relative to the working directory, and no table.

    Raises:
        ReportError: there are no two runs of the same documents, or answers differ with `require_equal`.
        OutputError: `out` can't be written.
    """
    messages = message_console()
    pairs, alone = _paired(first, second)
    for path in alone:
        messages.print(f"{path} has no counterpart and is not compared.", soft_wrap=True)
    compared = _compare(pairs)
    if as_json:
        print_json(to_records(compared, Path.cwd(), examples=num_examples))
    else:
        results = results_console()
        results.print(to_terminal(compared, examples=num_examples, width=results.width))
    if out is not None:
        messages.print("Written:")
        for path in write_agreement(compared, out, examples=num_examples):
            messages.print(f"  {path}", soft_wrap=True)
    if require_equal and (alone or not all(comparison.total.is_complete for comparison in compared)):
        raise ReportError(_difference(compared, alone))


def _paired(first: Path, second: Path) -> tuple[list[tuple[str, Path, Path]], list[Path]]:
    """Return name and folders of each pair, and runs that only one folder has."""
    for folder in (first, second):
        check_folder(folder)
    if first.resolve() == second.resolve():
        raise ReportError(f"{first} was given twice. Give two runs, or two folders of runs.")
    ours, theirs = (runs_below(folder) if read_record(folder) is None else {} for folder in (first, second))
    if not ours and not theirs:
        return [("", first, second)], []
    for folder, found, other in ((first, ours, second), (second, theirs, first)):
        if not found:
            raise ReportError(f"{folder} is one run and {other} holds several. Give two runs, or two folders of runs.")
    names = [name for name in ours if name in theirs]
    if not names:
        raise ReportError(
            f"The runs in {first} ({', '.join(ours)}) and in {second} ({', '.join(theirs)}) have no name in common. "
            "Give two runs by their own folders."
        )
    alone = [own[name] for own, other in ((ours, theirs), (theirs, ours)) for name in own if name not in other]
    return [(name, ours[name], theirs[name]) for name in names], alone


def _compare(pairs: Sequence[tuple[str, Path, Path]]) -> list[Comparison]:
    """Compare the pairs.

    Raises:
        ReportError: some pairs can't be compared; the message names all of them.
    """
    compared = []
    problems = []
    for name, first, second in pairs:
        try:
            compared.append(compare_runs(first, second, encode=_encoder(first, second), name=name))
        except ReportError as error:
            problems.append(str(error))
    if problems:
        raise ReportError("\n".join(problems))
    return compared


def _encoder(*folders: Path) -> Encode | None:
    """Return the tokenizer of a run's checkpoint; None if no run's checkpoint is available locally."""
    for folder in folders:
        record = read_record(folder)
        if record is None:
            continue
        for place in (Path(record.checkpoint.path), models_dir() / record.checkpoint.name):
            file = place / "tokenizer.json"
            if file.is_file():
                return _tokenizer(file)
    return None


@cache
def _tokenizer(file: Path) -> Encode:
    # Imported here, because it belongs to transformers, which reports don't need.
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))

    def encode(text: str) -> list[int]:
        # It can't encode half of a surrogate pair, which may end an answer.
        whole = text.encode(errors="replace").decode()
        ids: list[int] = tokenizer.encode(whole, add_special_tokens=False).ids
        return ids

    return encode


def _difference(compared: Sequence[Comparison], alone: Sequence[Path]) -> str:
    """Return the message of --require-equal."""
    found = [f"{path} has no counterpart" for path in alone]
    for comparison in compared:
        counts = comparison.total.counts
        numbers = {
            "other answers": counts.compared - counts.same_answers,
            "no answer in one of the runs": counts.documents - counts.compared,
            "only one run": counts.only_first + counts.only_second,
        }
        said = ", ".join(f"{number} documents with {what}" for what, number in numbers.items() if number)
        if not comparison.total.is_complete:
            found.append(f"{comparison.folders[0]} and {comparison.folders[1]}: {said or 'no documents to compare'}")
    return f"The runs are not equal. {'; '.join(found)}."
