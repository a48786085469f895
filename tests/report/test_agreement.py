"""Two runs side by side: which documents are the same, and every number by hand."""

import csv
import json
import math

import pytest

from vico_eval.errors import ReportError
from vico_eval.report.agreement.compare import compare_runs
from vico_eval.report.agreement.writers import to_markdown, write_agreement
from vico_eval.report.tables.grid import DASH

from .conftest import account, sample, write_run
from .test_vlmevalkit import write_vlmevalkit_run


def answer(number, text, score=1.0, **changes):
    """A samples line; the account takes the changes."""
    counts = [{"account": account() | {"media": f"{number:016x}"} | changes}]
    return sample(number, score, counts=counts) | {"filtered_resps": text}


def two_runs(tmp_path, first, second, **record):
    """Runs of the same task, or of several tasks where lines are given by task."""
    runs = []
    for name, lines in (("first", first), ("second", second)):
        tasks = lines if isinstance(lines, dict) else {"tiny_read": lines}
        runs.append(write_run(tmp_path / name, tasks, **(record if name == "second" else {})))
    return runs


def compared(tmp_path, first, second, encode=None, **record):
    return compare_runs(*two_runs(tmp_path, first, second, **record), encode=encode)


def test_the_same_answers_are_equal_whatever_white_space_is_around_them(tmp_path):
    lines = [answer(number, "a bus") for number in range(4)]
    found = compared(tmp_path, lines, [*lines[:3], answer(3, " a bus\n")])
    counts = found.total.counts
    assert (counts.documents, counts.compared, counts.same_answers, counts.same_accounts) == (4, 4, 4, 4)
    assert found.total.is_complete
    assert found.different_conditions == ()
    assert found.total.partings == ()


def test_answers_scores_and_changes_by_hand(tmp_path):
    first = [answer(0, "a red car"), answer(1, "two"), answer(2, "no", 0.0), answer(3, "7")]
    second = [answer(0, "a red bus", 0.0), answer(1, "two"), answer(2, "yes", 1.0), answer(3, "9", 0.0)]
    (line,) = compared(tmp_path, first, second).benchmarks
    assert line.benchmark == "Read"
    assert (line.counts.same_answers, line.same_percent) == (1, 25)
    assert (line.scores.first, line.scores.second) == (75, 50)
    assert (line.scores.lost, line.scores.gained) == (2, 1)
    assert line.scores.interval.difference == -25
    assert line.scores.interval.low < -25 < line.scores.interval.high
    # "a red car" and "a red bus" share 6 characters and 2 words; the other two share nothing.
    assert [parting.characters for parting in line.partings] == [6, 0, 0]
    assert (line.first_difference("characters"), line.first_difference("words")) == (0, 0)
    assert math.isnan(line.first_difference("tokens"))
    assert not line.is_complete


def test_tokens_are_those_of_the_given_tokenizer(tmp_path):
    # A token for each two characters.
    def encode(text):
        return [hash(text[place : place + 2]) for place in range(0, len(text), 2)]

    found = compared(tmp_path, [answer(0, "a red car")], [answer(0, "a red bus")], encode)
    assert found.total.first_difference("tokens") == 3
    assert "Read, tiny_read/0, after token 3: 'a red car' | 'a red bus'" in to_markdown([found], examples=1).replace(
        "\\", ""
    )


def test_the_interval_takes_documents_of_a_picture_for_one(tmp_path):
    def lines(scores, num_pictures):
        return [
            answer(number, "7", score, media=f"{number % num_pictures:016x}") for number, score in enumerate(scores)
        ]

    first, second = [1.0] * 40, [0.0, 1.0, 1.0, 1.0, 1.0] * 8
    apart = compared(tmp_path / "apart", lines(first, 40), lines(second, 40)).total.scores.interval
    shared = compared(tmp_path / "shared", lines(first, 5), lines(second, 5)).total.scores.interval
    assert apart.difference == shared.difference == -20
    # Five pictures, one of which loses all of its documents, tell less than forty documents.
    assert shared.low < apart.low
    assert shared.high - shared.low > 1.5 * (apart.high - apart.low)


def test_runs_that_agree_on_few_documents_may_still_differ_on_others(tmp_path):
    def interval(folder, number):
        lines = [answer(place, "7") for place in range(number)]
        return compared(folder, lines, lines).total.scores.interval

    few, many = interval(tmp_path / "few", 20), interval(tmp_path / "many", 200)
    assert (few.difference, many.difference) == (0, 0)
    # Clopper and Pearson's limit of none: about 3.7 of 20 documents, and of 200.
    assert few.low == pytest.approx(-few.high, rel=0.01)
    assert few.high == pytest.approx(10 * many.high)
    assert 1.5 <= many.high <= 2.5


def test_documents_of_one_run_alone_are_counted_and_not_compared(tmp_path):
    first = [answer(number, "7", float(number < 2)) for number in range(4)]
    second = [answer(number, "7", float(number < 2)) for number in range(6)]
    found = compared(tmp_path, first, second[1:], config={"offset": 1}, original=6)
    counts = found.total.counts
    assert (counts.documents, counts.only_first, counts.only_second, counts.same_answers) == (3, 1, 2, 3)
    # Each score is of all of a run's documents, the difference of those that both have.
    assert (found.total.scores.first, found.total.scores.second) == (50, 20)
    assert found.total.scores.interval.difference == 0
    assert not found.total.is_complete
    text = to_markdown([found], examples=0)
    assert "Read: 1 documents are only in" in text
    assert "Read: 2 documents are only in" in text


def test_the_mean_of_several_benchmarks_and_their_sums(tmp_path):
    first = {"tiny_read": [answer(0, "7"), answer(1, "8")], "tiny_count": [answer(0, "3"), answer(1, "4")]}
    second = {
        "tiny_read": [answer(0, "7"), answer(1, "9", 0.0)],
        "tiny_count": [answer(0, "3"), answer(1, "4", text_tokens=21)],
    }
    found = compared(tmp_path, first, second)
    assert [line.benchmark for line in found.lines] == ["Read", "Count", "All"]
    assert found.total.counts.documents == 4
    assert found.total.same_percent == 75
    assert (found.total.scores.first, found.total.scores.second) == (100, 75)
    assert found.total.scores.interval.difference == -25
    assert found.total.scores.lost == 1
    assert found.total.counts.same_accounts == 3
    assert dict(found.total.different_counts) == {"text_tokens": 1}


def test_a_task_that_the_catalogue_does_not_have_is_compared_without_scores(tmp_path):
    first, second = ({"own_task": [answer(0, text)]} for text in ("7", "8"))
    (line,) = compared(tmp_path, first, second).benchmarks
    assert (line.benchmark, line.counts.compared, line.counts.same_answers) == ("own_task", 1, 0)
    assert math.isnan(line.scores.first)
    assert line.scores.left_out == "not in tasks/benchmarks.yaml"


def test_a_document_that_failed_is_neither_equal_nor_different(tmp_path):
    lines = [answer(number, "7") for number in range(3)]
    first, second = two_runs(tmp_path, lines, lines)
    failure = {"task": "tiny_read", "split": "test", "doc_id": 1, "reason": "no such image"}
    (second / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    samples = next(second.rglob("*_samples_tiny_read.jsonl"))
    changed = [json.loads(line) for line in samples.read_text().splitlines()]
    changed[1] |= {"filtered_resps": "", "resps": "", "token_counts": [None]}
    samples.write_text("".join(json.dumps(line) + "\n" for line in changed))
    found = compare_runs(first, second).total
    assert (found.counts.documents, found.counts.compared, found.counts.same_answers) == (3, 2, 2)
    assert (found.counts.failed_first, found.counts.failed_second) == (0, 1)
    assert math.isnan(found.scores.second)
    assert "second has documents that could not be answered" in found.scores.left_out
    assert not found.is_complete


def test_accounts_are_compared_field_by_field(tmp_path):
    first = [answer(0, "7"), answer(1, "7", finish="stop"), answer(2, "7", finish="stop"), answer(3, "7")]
    second = [
        answer(0, "7", generated_tokens=3),
        answer(1, "7", finish="length"),
        answer(2, "7"),  # an older version, which doesn't say
        answer(3, "7", p_compress=[0.1] * 4, compressed_tiles=2),
    ]
    found = compared(tmp_path, first, second).total
    assert found.counts.same_accounts == 1
    assert dict(found.different_counts) == {
        "generated_tokens": 1,
        "finish": 1,
        "p_compress": 1,
        "compressed_tiles": 1,
    }


def test_what_the_records_differ_in(tmp_path):
    lines = [answer(0, "7")]
    settings = {"batch_size": 1, "max_tiles": None, "engine": "vllm"}
    changes = {"dtype": "float32", "num_processes": 4, "versions": {"torch": "2.13.0"}, "settings": settings}
    found = compared(tmp_path, lines, lines, title="Other", started="2026-12-01T00:00:00+00:00", **changes)
    assert [tuple(one) for one in found.different_conditions] == [
        ("versions.vico_eval", "0.1.0", "none"),
        ("versions.torch", "2.15.0", "2.13.0"),
        ("versions.python", "3.11.9", "none"),
        ("settings.engine", "transformers", "vllm"),
        ("settings.batch_size", "8", "1"),
        ("dtype", "bfloat16", "float32"),
        ("num_processes", "1", "4"),
    ]


def test_answers_are_compared_before_a_tasks_filters(tmp_path):
    # Both scorers saw a 7, and the models said other things.
    first, second = (
        [sample(0, 1.0) | {"filtered_resps": "7", "resps": [[f"<think>{text}</think>7"]]}] for text in ("hm", "ah")
    )
    assert compared(tmp_path, first, second).total.counts.same_answers == 0


# What can't be compared


def test_the_same_folder_twice_is_no_pair(tmp_path):
    first, _ = two_runs(tmp_path, [answer(0, "7")], [answer(0, "7")])
    with pytest.raises(ReportError, match="was given twice"):
        compare_runs(first, tmp_path / "second" / ".." / "first")


def test_runs_without_a_common_benchmark_are_refused(tmp_path):
    with pytest.raises(ReportError, match=r"no benchmark in common: tiny_read of lmms-eval and tiny_count of"):
        compared(tmp_path, {"tiny_read": [answer(0, "7")]}, {"tiny_count": [answer(0, "7")]})


def test_a_task_of_one_run_alone_is_noted(tmp_path):
    both = {"tiny_read": [answer(0, "7")]}
    found = compared(tmp_path, {**both, "tiny_count": [answer(0, "7")]}, both)
    assert found.notes == (f"tiny_count: only {tmp_path / 'first'} has it.",)


def test_runs_of_other_documents_are_refused(tmp_path):
    with pytest.raises(ReportError, match=r"different documents \(1: tiny_read/0 to tiny_read/0 and 1: tiny_read/1"):
        compared(tmp_path, [answer(0, "7")], [answer(1, "7")], config={"offset": 1}, original=2)


@pytest.mark.parametrize(
    ("change", "what"), [({"input": "What letter is it?"}, "questions"), ({"target": "8"}, "right answers")]
)
def test_other_data_under_the_same_numbers_are_refused(tmp_path, change, what):
    first = [answer(number, "7") for number in range(40)]

    def changed(count):
        return [line | (change if place < count else {}) for place, line in enumerate(first)]

    with pytest.raises(ReportError, match=f"have different {what} for 3 of 40 documents with the same key"):
        compared(tmp_path / "many", first, changed(3))
    found = compared(tmp_path / "few", first, changed(2))
    assert f"Read: different {what} for 2 of 40 documents." in found.notes


def test_a_folder_without_results_is_refused(tmp_path):
    first, second = two_runs(tmp_path, [answer(0, "7")], [answer(0, "7")])
    next(second.rglob("*_results.json")).unlink()
    with pytest.raises(ReportError, match="second has no results file"):
        compare_runs(first, second)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match="empty is empty"):
        compare_runs(first, tmp_path / "empty")


# Two toolkits


def mmstar(indices, answers, scores, targets="ABB"):
    """lmms-eval's lines of MMStar, whose rows need not be in the order of their indices."""
    fields = [{"question_id": index, "score": score} for index, score in zip(indices, scores, strict=True)]
    rows = enumerate(zip(fields, answers, targets, strict=True))
    return [
        answer(number, text) | {"exact_match": None, "average": field, "target": target}
        for number, (field, text, target) in rows
    ]


def of_both_toolkits(tmp_path, lines, *, task="mmstar", metric="average,none"):
    first = write_run(tmp_path / "lmms", {task: lines}, metrics={task: {metric: 0.5}})
    return compare_runs(first, write_vlmevalkit_run(tmp_path / "vlm"))


def test_documents_of_both_toolkits_are_matched_by_vlmevalkits_index(tmp_path):
    # VLMEvalKit has A, None and B for the indices 0, 1 and 2, of which 0 and 2 are right.
    lines = mmstar([2, 0, 7], ["B", "C", "A"], [1.0, 0.0, 1.0])
    (line,) = of_both_toolkits(tmp_path, lines).benchmarks
    assert line.benchmark == "MMStar"
    assert (line.counts.documents, line.counts.only_first, line.counts.only_second) == (2, 1, 1)
    assert line.counts.same_answers == 1
    assert [parting.document for parting in line.partings] == ["mmstar/1"]
    assert (line.scores.lost, line.scores.gained) == (0, 1)
    assert line.scores.interval.difference == 50


def test_where_the_index_is_not_kept_only_scores_are_compared(tmp_path):
    lines = [line | {"average": {"score": 1.0}} for line in mmstar([0, 1, 2], "ABC", [1.0, 1.0, 1.0])]
    found = of_both_toolkits(tmp_path, lines)
    (line,) = found.benchmarks
    assert (line.counts.documents, line.counts.only_first) == (0, 0)
    assert (line.scores.first, line.scores.second) == (100, pytest.approx(200 / 3))
    assert line.scores.left_out == "its documents can't be matched"
    assert "MMStar: lmms-eval's samples lack VLMEvalKit's document index" in found.notes[0]
    assert not line.is_complete


# Files


def test_the_files_hold_what_the_table_shows(tmp_path):
    first = [answer(0, "a red car"), answer(1, "=7")]
    folders = two_runs(tmp_path, first, [answer(0, "a red bus", 0.0), answer(1, "=7 HALF")], dtype="float32")
    for path in folders[1].rglob("*.jsonl"):
        path.write_text(path.read_text().replace("HALF", "\\ud83d"))  # half of a pair, which no encoding has
    found = compare_runs(*folders)
    paths = write_agreement([found], tmp_path / "out", examples=5)
    assert [path.name for path in paths] == ["agreement.csv", "agreement.md", "agreement.json"]
    with paths[0].open(newline="", encoding="utf-8") as file:
        lines = {line["benchmark"]: line for line in csv.DictReader(file)}
    assert lines["Read"]["same_percent"] == "0.0"
    assert lines["All"]["difference"] == "-50.0"
    (record,) = json.loads(paths[2].read_text(encoding="utf-8"))
    assert [run["folder"] for run in record["runs"]] == ["../first", "../second"]
    assert record["total"]["compared"] == 2
    assert record["total"]["first_difference_tokens"] is None
    assert record["different_conditions"] == [{"name": "dtype", "first": "bfloat16", "second": "float32"}]
    assert [example["document"] for example in record["examples"]] == ["tiny_read/0", "tiny_read/1"]
    assert "dtype: bfloat16 \\| float32" in paths[1].read_text(encoding="utf-8")


def test_a_share_is_100_percent_only_if_all_are_equal(tmp_path):
    first = [answer(number, "7") for number in range(3000)]
    found = compared(tmp_path, first, [*first[:-1], answer(2999, "8")])
    assert "| 3,000 | 99.9% | 1 |" in to_markdown([found], examples=0)


def test_what_is_unknown_is_a_dash(tmp_path):
    found = compared(tmp_path, {"own_task": [answer(0, "7")]}, {"own_task": [answer(0, "7")]})
    row = next(line for line in to_markdown([found], examples=0).splitlines() if line.startswith("| own"))
    assert row.count(DASH) == 7
