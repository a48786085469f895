import json
import shutil
from pathlib import Path

import pytest

from vico_eval.errors import ReportError
from vico_eval.runs.read import read_run
from vico_eval.runs.schema import RunRecord, TokenAccount
from vico_eval.runs.write import RunFolder

from .conftest import DATE, RECORD, account, sample, write_run

LMMS_EVAL_RUN = Path(__file__).parent / "data" / "lmms_eval_0_7_3"


def samples_path(folder: Path, task: str = "tiny_read", date: str = DATE) -> Path:
    return folder / "models__vico-tiny" / f"{date}_samples_{task}.jsonl"


def results_path(folder: Path) -> Path:
    return folder / "models__vico-tiny" / f"{DATE}_results.json"


def read_error(folder: Path) -> str:
    with pytest.raises(ReportError) as caught:
        read_run(folder)
    return str(caught.value)


def test_a_folder_written_by_lmms_eval_is_read():
    run = read_run(LMMS_EVAL_RUN)
    assert run.record.title == "Dummy"
    assert sorted(run.tasks) == ["tiny_count", "tiny_read"]  # the group `tiny` is no task of its own
    task = run.tasks["tiny_read"]
    assert task.metrics["exact_match,none"] == 0.5
    assert [document.fields["exact_match"] for document in task.documents] == [1.0, 0.0, 1.0, 0.0]
    assert task.num_available == 5
    assert task.settings["generation_kwargs"]["max_new_tokens"] == 8
    assert all(document.account is None for document in task.documents)


def test_documents_of_several_processes_are_put_in_order(tmp_path):
    lines = [sample(doc_id, float(doc_id)) for doc_id in (0, 2, 4, 1, 3)]  # rank 0 first, then rank 1
    run = read_run(write_run(tmp_path, {"tiny_read": lines}))
    assert [document.fields["exact_match"] for document in run.tasks["tiny_read"].documents] == [0, 1, 2, 3, 4]


def test_no_results_file_means_that_the_evaluation_failed(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    results_path(folder).unlink()
    assert "no results file" in read_error(folder)


def test_side_files_of_tasks_are_not_results(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    side = folder / "submissions"
    side.mkdir()
    (side / "mmbench_en_dev_static_results.json").write_text("[]")
    assert list(read_run(folder).tasks) == ["tiny_read"]


def test_a_run_without_a_model_folder_is_read(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    for path in (folder / "models__vico-tiny").iterdir():
        path.rename(folder / path.name)
    assert list(read_run(folder).tasks) == ["tiny_read"]


def test_a_missing_document_is_named(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(doc_id, 1.0) for doc_id in range(4)]})
    lines = samples_path(folder).read_text().splitlines(keepends=True)
    samples_path(folder).write_text("".join(lines[:2] + lines[3:]))
    assert "tiny_read (4 documents expected): document 2 not in the samples file" in read_error(folder)


def test_offset_and_limit_say_which_documents_are_expected(tmp_path):
    lines = [sample(doc_id, 1.0) for doc_id in (3, 4)]
    folder = write_run(tmp_path, {"tiny_read": lines}, original=10, limit=2.0, config={"offset": 3})
    assert [document.doc_id for document in read_run(folder).tasks["tiny_read"].documents] == [3, 4]


@pytest.mark.parametrize("answer", ["", "  \n", None, [], [""], ["7", " "]])
def test_a_document_without_an_answer_is_named(tmp_path, answer):
    lines = [sample(doc_id, 0.0, counts=[{"output_tokens": 0}]) for doc_id in range(3)]
    lines[1]["filtered_resps"] = answer
    assert "tiny_read (3 documents expected): document 1 without an answer" in read_error(
        write_run(tmp_path, {"tiny_read": lines})
    )


def test_a_null_answer_is_told_from_the_word_none(tmp_path):
    # lmms-eval turns a null answer into the text "None"; it then has no token counts either.
    said = sample(0, 0.0) | {"filtered_resps": "None"}
    null = sample(1, 0.0, counts=[None]) | {"filtered_resps": "None"}
    assert "document 1 without" in read_error(write_run(tmp_path, {"tiny_read": [said, null]}))


def test_an_answer_that_a_filter_emptied_is_an_answer(tmp_path):
    thought = sample(0, 0.0) | {"filtered_resps": "", "resps": ["<think>7</think>"]}
    assert len(read_run(write_run(tmp_path, {"tiny_read": [thought]})).tasks["tiny_read"].documents) == 1


def test_a_model_that_ended_at_once_has_answered(tmp_path):
    ended = sample(0, 0.0) | {"filtered_resps": ""}
    assert len(read_run(write_run(tmp_path, {"tiny_read": [ended]})).tasks["tiny_read"].documents) == 1


def test_every_incomplete_task_is_named_and_long_lists_are_cut(tmp_path):
    blank = [sample(doc_id, 0.0, counts=[None]) | {"filtered_resps": ""} for doc_id in range(12)]
    message = read_error(write_run(tmp_path, {"tiny_read": blank, "tiny_doc": blank, "tiny_bar": [sample(0, 1.0)]}))
    assert "tiny_read (12" in message
    assert "tiny_doc (12" in message
    assert "tiny_bar" not in message
    assert "documents 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more without an answer" in message


def test_a_document_logged_twice_is_refused(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    with samples_path(folder).open("a") as file:
        file.write(json.dumps(sample(0, 0.0)) + "\n")
    assert "line 2 is the second line of document 0" in read_error(folder)


@pytest.mark.parametrize("name", ["results", "samples", "record"])
def test_a_truncated_file_is_named(tmp_path, name):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0), sample(1, 1.0)]})
    paths = {"results": results_path(folder), "samples": samples_path(folder), "record": folder / "record.json"}
    text = paths[name].read_text()
    paths[name].write_text(text[: len(text) - 20])
    message = read_error(folder)
    assert str(paths[name]) in message
    assert "not valid JSON" in message


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    samples_path(folder).write_bytes(b"\xff\xfe\x00")
    assert "can't be read" in read_error(folder)


def test_a_line_separator_inside_an_answer_does_not_split_its_line(tmp_path):
    line = sample(0, 1.0) | {"filtered_resps": "seven\u2028eight"}
    assert len(read_run(write_run(tmp_path, {"tiny_read": [line]})).tasks["tiny_read"].documents) == 1


def test_without_samples_nothing_can_be_checked(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    samples_path(folder).unlink()
    assert "--log_samples" in read_error(folder)


def test_a_run_without_a_record_is_not_reported(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    (folder / "record.json").unlink()
    assert "has no record.json" in read_error(folder)


def test_a_record_with_wrong_fields_names_each(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]})
    record = {key: value for key, value in RECORD.items() if key != "dtype"} | {"num_processes": 0, "colour": "red"}
    (folder / "record.json").write_text(json.dumps(record))
    message = read_error(folder)
    assert str(folder / "record.json") in message
    for field in ("`dtype`: Field required", "`num_processes`: ", "`colour`: Extra inputs"):
        assert field in message


def test_the_newest_results_count_when_the_settings_are_the_same(tmp_path):
    write_run(tmp_path, {"tiny_read": [sample(0, 0.0)], "tiny_doc": [sample(0, 0.0)]}, date="20261120_120000")
    run = read_run(write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]}, date="20261121_120000"))
    assert run.tasks["tiny_read"].metrics["exact_match,none"] == 1.0
    assert run.tasks["tiny_doc"].metrics["exact_match,none"] == 0.0


def test_results_of_other_settings_in_the_folder_are_refused(tmp_path):
    write_run(tmp_path, {"tiny_read": [sample(0, 0.0)]}, date="20261120_120000", limit=1.0)
    message = read_error(write_run(tmp_path, {"tiny_read": [sample(0, 1.0)]}, date="20261121_120000"))
    assert "differ in limit" in message


@pytest.mark.parametrize(
    ("started", "counts"),
    [
        ("2026-11-21T11:42:14+00:00", True),  # lmms-eval's date is 19:42:15 in Singapore, its time 1.7 s
        ("2026-11-21T12:42:18+01:00", True),
        ("2026-11-21T11:50:00+00:00", False),  # a later run, which left no results
        ("2026-11-21T11:30:00+00:00", False),  # the results are a later run's, which left no record
    ],
)
def test_results_and_record_must_be_of_the_same_run(tmp_path, started, counts):
    folder = tmp_path / "run"
    shutil.copytree(LMMS_EVAL_RUN, folder)
    record = json.loads((folder / "record.json").read_text()) | {"started": started}
    (folder / "record.json").write_text(json.dumps(record))
    if counts:
        assert len(read_run(folder).tasks) == 2
    else:
        assert "The later run failed or was another model's" in read_error(folder)


def answer_line(doc_id, compressed):
    line = {"task": "tiny_read", "split": "test", "doc_id": doc_id, "repeat": 0, "asked": "so", "text": "7"}
    return line | {"account": account(7, compressed)}


def test_documents_that_the_run_went_on_without_are_known_to_have_failed(tmp_path):
    blank = sample(1, 0.0, counts=[None]) | {"filtered_resps": ""}
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0), blank]})
    assert "document 1 without an answer" in read_error(folder)
    failures = [
        {"task": "tiny_read", "split": "test", "doc_id": doc_id, "reason": reason}
        for doc_id, reason in ((0, "answered later"), (1, "no such image"), (1, "no such picture"))
    ]
    (folder / "failures.rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in failures))
    documents = read_run(folder).tasks["tiny_read"].documents
    assert [document.failure for document in documents] == [None, "no such picture"]


def test_accounts_come_from_the_samples_else_from_the_side_files(tmp_path):
    lines = [sample(0, 1.0), sample(1, 1.0, counts=[None]), sample(2, 1.0, counts=None)]
    folder = write_run(tmp_path, {"tiny_read": lines})
    (folder / "answers.rank1.jsonl").write_text(json.dumps(answer_line(1, 3)) + "\n")
    documents = read_run(folder).tasks["tiny_read"].documents
    tiles = [document.account and document.account[0].tiles for document in documents]
    assert tiles == [4, 7, None]


def test_the_answer_is_what_was_scored_and_a_failed_document_has_none(tmp_path):
    lines = [
        sample(0, 1.0) | {"filtered_resps": "B", "resps": [["<think>A?</think> B"]]},
        sample(1, 0.0) | {"filtered_resps": ["A", "B"]},
        sample(2, 0.0) | {"filtered_resps": ""},
        sample(3, 0.0, counts=[None]) | {"filtered_resps": ""},
    ]
    folder = write_run(tmp_path, {"tiny_read": lines})
    failure = {"task": "tiny_read", "split": "test", "doc_id": 3, "reason": "no such picture"}
    (folder / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    documents = read_run(folder).tasks["tiny_read"].documents
    assert [document.answer for document in documents] == ["B", "A\nB", "", None]


def test_what_the_adapter_writes_is_what_the_report_reads(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0, counts=[None])]})
    written = TokenAccount(
        **account(7, 3) | {"visual_tokens_per_layer": (76, 40), "p_compress": (0.25,) * 7, "media": "1f2e"}
    )
    RunFolder(folder, RunRecord.model_validate(RECORD)).add(("tiny_read/test/0", 0, "greedy"), "7", written)
    (read,) = read_run(folder).tasks["tiny_read"].documents[0].account
    assert read.model_dump() == written.to_dict() | {"visual_tokens_per_layer": (76, 40), "p_compress": (0.25,) * 7}


def test_a_continued_side_file_holds_its_last_lines_and_may_have_a_cut_one(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(doc_id, 1.0, counts=[None]) for doc_id in range(3)]})
    sides = [json.dumps(answer_line(doc_id, compressed)) for doc_id, compressed in ((0, 1), (1, 1), (0, 2))]
    sides.insert(2, sides[1].replace('"doc_id": 1', '"doc_id": 2')[:60])  # the stopped run's last line
    (folder / "answers.rank0.jsonl").write_text("\n".join(sides))
    documents = read_run(folder).tasks["tiny_read"].documents
    assert [document.account and document.account[0].compressed_tiles for document in documents] == [2, 1, None]


def test_two_different_accounts_of_a_document_are_refused(tmp_path):
    folder = write_run(tmp_path, {"tiny_read": [sample(0, 1.0, counts=[None])]})
    for rank, compressed in enumerate((1, 2)):
        (folder / f"answers.rank{rank}.jsonl").write_text(json.dumps(answer_line(0, compressed)) + "\n")
    assert "document 0 of tiny_read different token counts" in read_error(folder)


def test_an_impossible_account_is_refused(tmp_path):
    lines = [sample(0, 1.0, counts=[{"account": account(4) | {"compressed_tiles": 5}}])]
    message = read_error(write_run(tmp_path, {"tiny_read": lines}))
    assert "line 1" in message
    assert "compressed_tiles=5 is more than tiles=4" in message


def test_half_of_a_character_in_an_answer_changes_nothing_else(tmp_path):
    line = sample(0, 1.0, counts=[{"output_tokens": 2, "account": account(7, 3)}])
    whole = read_run(write_run(tmp_path / "whole", {"tiny_read": [line]})).tasks["tiny_read"].documents[0]
    folder = write_run(tmp_path / "half", {"tiny_read": [line]})
    text = samples_path(folder).read_text()
    samples_path(folder).write_text(text.replace('"filtered_resps": "7"', '"filtered_resps": "7\\ud83d"'))
    answers = folder / "answers.rank0.jsonl"
    answers.write_text(answers.read_text().replace('"text": "7"', '"text": "7\\ud83d"'))
    half = read_run(folder).tasks["tiny_read"].documents[0]
    assert (half.answer, half.account, half.fields) == ("7\ud83d", whole.account, whole.fields)


def test_a_path_that_is_no_folder_is_an_error(tmp_path):
    assert "is not a folder" in read_error(tmp_path / "nothing")
