"""A run of ours is what its record and its journal say: results or answers of another are refused."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from vico_eval.errors import ReportError
from vico_eval.harnesses.lmms_eval.results import NO_JOURNAL
from vico_eval.report import write_report
from vico_eval.runs.answers import read_journal
from vico_eval.runs.read import read_run

from .conftest import account, answer_line, sample, write_run

VANILLA = Path(__file__).parent / "data" / "vico_eval_vanilla"


@pytest.fixture
def run(tmp_path):
    """One that lmms-eval and this package wrote, in the folder `own`."""
    return Path(shutil.copytree(VANILLA, tmp_path / "own"))


def files(run, pattern):
    return sorted(run.rglob(pattern))


def change_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_lines(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    path.write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def change_results(run, **config):
    change_json(files(run, "*_results.json")[0], lambda value: value["config"].update(config))


def change_record(run, **values):
    change_json(run / "record.json", lambda value: value.update(values))


def change_samples(run, change, task="tiny_read"):
    change_lines(files(run, f"*_samples_{task}.jsonl")[0], change)


def error_of(folder):
    with pytest.raises(ReportError) as caught:
        read_run(folder)
    return str(caught.value)


def as_vico(run):
    """The run as if `vico_internvl` had made it, into the folder `other`."""
    for path in (*files(run, "*_results.json"), run / "record.json"):
        text = (
            path.read_text().replace("vanilla_internvl", "vico_internvl").replace("record_dir=own", "record_dir=other")
        )
        path.write_text(text.replace('"--output_path", "own"', '"--output_path", "other"'))
    change_record(run, system="vico", method="vico", title="ViCO")
    return run


def test_two_commands_with_each_others_output_path_are_refused(run, tmp_path):
    other = as_vico(Path(shutil.copytree(run, tmp_path / "other")))
    assert [list(read_run(folder).tasks) for folder in (run, other)] == [["tiny_colour", "tiny_count", "tiny_read"]] * 2
    for folder, name in ((run, "mine"), (other, "theirs")):
        (folder / "vico-tiny-base").rename(tmp_path / name)
    (tmp_path / "mine").rename(other / "vico-tiny-base")
    (tmp_path / "theirs").rename(run / "vico-tiny-base")
    message = error_of(run)
    (path,) = files(run, "*_results.json")
    assert f"{path} is not of the run that {run / 'record.json'} describes: " in message
    assert "model is vico_internvl, expected vanilla_internvl" in message
    assert "record_dir is other, expected own" in message
    assert "model is vanilla_internvl, expected vico_internvl" in error_of(other)


ARGS = "pretrained=vico-tiny-base,record_dir=own"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model": "fastv_internvl"}, "method is fastv, expected vanilla"),
        ({"model": "internvl_hf"}, "model is internvl_hf, expected vanilla_internvl"),
        ({"model_args": "pretrained=vico-tiny,record_dir=own"}, "pretrained is vico-tiny, expected vico-tiny-base"),
        ({"model_args": {"pretrained": "vico-tiny"}}, "pretrained is vico-tiny, expected vico-tiny-base"),
        ({"model_args": "pretrained=vico-tiny-base,record_dir=elsewhere"}, "record_dir is elsewhere, expected own"),
        ({"model_args": "pretrained=vico-tiny-base"}, "record_dir is not given, expected own"),
        ({"model_args": f"{ARGS},max_tiles=6"}, "max_tiles is 6, expected not given"),
        ({"model_args": f"{ARGS},flash_from=vico-tiny"}, "flash_from is vico-tiny, expected not given"),
    ],
)
def test_results_of_another_model_or_other_arguments_are_refused(run, config, said):
    change_results(run, **config)
    assert said in error_of(run)


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        ("vanilla_internvl", {"pretrained": "vico-tiny"}, "pretrained is vico-tiny, expected vico-tiny-base"),
        ("vanilla_internvl", {"max_tiles": 6}, "max_tiles is 6, expected None"),
        ("vanilla_internvl", {"dtype": "bfloat16"}, "dtype is bfloat16, expected float32"),
        ("vanilla_internvl", {"attn_implementation": "eager"}, "attn_implementation is eager, expected sdpa"),
        ("vanilla_internvl", {"flash_from": "vico-tiny"}, "flash_from is vico-tiny, expected none"),
        ("vico_internvl", {}, "method is vico, expected vanilla"),
        ("compressed_internvl", {"method": "pool+vico"}, "method is pool+vico, expected vanilla"),
    ],
)
def test_a_run_without_a_command_line_is_held_against_its_records_fields(run, model, arguments, said):
    """lmms-eval can be called from Python, or read all arguments from a file."""
    change_record(run, command=["script.py"])
    change_results(run, model=model, model_args=arguments)
    assert said in error_of(run)


def test_a_methods_arguments_are_compared_as_values(run):
    change_record(run, command=["script.py"], method="vico", method_args={"relative_threshold": 0.5, "seed": 1})
    change_results(run, model="vico_internvl", model_args="relative_threshold=0.50,seed=1")
    assert read_run(run).record.method == "vico"
    change_results(run, model="vico_internvl", model_args="relative_threshold=0.3")
    assert "relative_threshold is 0.3, expected 0.5" in error_of(run)


@pytest.mark.parametrize(
    "arguments",
    [
        f"{ARGS},resume=true,keep_going=true,previews=false",
        "record_dir=./own/,pretrained=vico-tiny-base",
        "pretrained=vico-tiny-base,record_dir=/home/me/work/own",
        {"pretrained": "vico-tiny-base", "record_dir": "own", "batch_size": 8},
    ],
)
def test_commands_that_mean_the_same_are_of_one_run(run, arguments):
    change_results(run, model_args=arguments)
    assert len(read_run(run).tasks) == 3


def test_a_hidden_secret_is_no_difference(run):
    command = [*json.loads((run / "record.json").read_text())["command"]]
    command[command.index("--model_args") + 1] += ",token=***"
    change_record(run, command=command)
    change_results(run, model_args=f"{ARGS},token=[REDACTED]")
    assert len(read_run(run).tasks) == 3


def test_a_command_line_may_join_options_and_values(run):
    change_record(run, command=["python", "--model=vanilla_internvl", f"--model_args={ARGS}"])
    assert len(read_run(run).tasks) == 3
    change_record(run, command=["python", "--model=vanilla_internvl", f"--model_args={ARGS},max_tiles=6"])
    assert "max_tiles is not given, expected 6" in error_of(run)


def test_a_system_instruction_that_was_never_asked_is_refused(run):
    (path,) = files(run, "*_results.json")
    change_json(path, lambda value: value.update(system_instruction="Be brief."))
    assert "system_instruction is Be brief., expected None" in error_of(run)
    change_record(run, system_instruction="Be brief.")
    assert len(read_run(run).tasks) == 3


def other_answer(line):
    return line | {"filtered_resps": "0"} if line["doc_id"] == 2 else line


def other_cost(line):
    if line["doc_id"] != 2:
        return line
    counts = line["token_counts"][0]
    return line | {"token_counts": [counts | {"account": counts["account"] | {"media": "00" * 8}}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_answer, "The first is '0'; expected '"),
        (other_cost, " at another cost, media 0000000000000000 and not "),
    ],
)
def test_samples_that_are_not_the_journals_answers_are_refused(run, change, said):
    change_samples(run, change)
    message = error_of(run)
    assert said in message
    (path,) = files(run, "*_samples_tiny_read.jsonl")
    assert f"{path} has answers that are not those of the run in whose folder it is: document 2." in message
    assert f"{run / 'answers.rank0.jsonl'}, line " in message


def test_samples_with_another_question_than_the_journals_are_refused(run):
    question = {
        (path.stem.partition("_samples_")[2], line["doc_id"]): line["input"]
        for path in files(run, "*_samples_*.jsonl")
        for line in map(json.loads, path.read_text().splitlines())
    }
    change_lines(
        run / "answers.rank0.jsonl",
        # 16 digits of SHA-256 are what a run writes of the question.
        lambda line: (
            line
            | {"asked": f"{line['asked']}-{sha256(question[line['task'], line['doc_id']].encode()).hexdigest()[:16]}"}
        ),
    )
    assert len(read_run(run).tasks) == 3
    change_samples(run, lambda line: line | {"input": f"{line['input']} Now?"} if line["doc_id"] == 2 else line)
    assert "Now?'; expected another question by " in error_of(run)


def test_samples_of_documents_that_the_journal_lacks_are_refused(run):
    lines = (run / "answers.rank0.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"task": "tiny_count"' not in line]
    (run / "answers.rank0.jsonl").write_text("".join(kept))
    message = error_of(run)
    assert "documents 0, 1, 2, 3. The first is '5'; expected none by the answers.rank" in message


def test_a_run_without_a_journal_says_that_it_was_not_checked(run):
    (run / "answers.rank0.jsonl").unlink()
    assert read_run(run).notes == (NO_JOURNAL,)


def test_answers_behind_a_filter_are_known_by_what_they_cost(run):
    def add_filter(value):
        value["configs"]["tiny_read"]["filter_list"] = [{"name": "none", "filter": [{"function": "lowercase"}]}]

    change_json(files(run, "*_results.json")[0], add_filter)
    change_samples(run, other_answer)
    assert read_run(run).tasks["tiny_read"].documents[2].answer == "0"
    change_samples(run, other_cost)
    assert "document 2." in error_of(run)


def test_every_answer_of_a_repeated_question_is_looked_for(tmp_path):
    repeated = sample(0, 1.0) | {"filtered_resps": "7", "resps": ["7", "8"]}
    folder = write_run(tmp_path, {"tiny_read": [repeated]}, journal=False)
    lines = [answer_line(0, "7"), answer_line(0, "8", repeat=1)]
    (folder / "answers.rank0.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (document,) = read_run(folder).tasks["tiny_read"].documents
    assert (document.failure, len(document.account)) == (None, 1)
    (folder / "answers.rank0.jsonl").write_text(json.dumps(lines[0]))
    (document,) = read_run(folder).tasks["tiny_read"].documents
    assert "response cache" in document.failure


def test_each_request_of_a_document_has_its_own_account(tmp_path):
    counts = [{"account": account(4)}, {"account": account(4, 2)}]
    two = sample(0, 1.0, counts=counts) | {"filtered_resps": ["7", "8"], "resps": [["7"], ["8"]]}
    folder = write_run(tmp_path, {"tiny_read": [two]}, journal=False)
    lines = [answer_line(0, "7"), answer_line(0, "8", repeat=1, compressed=2)]
    (folder / "answers.rank0.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (document,) = read_run(folder).tasks["tiny_read"].documents
    assert [one.compressed_tiles for one in document.account] == [0, 2]
    lines[1]["account"] = account(4, 3)
    (folder / "answers.rank0.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "document 0." in error_of(folder)


def test_a_continued_run_may_have_answered_a_document_before(run):
    """Several processes pad with questions again, and a repeated command answers all once more."""
    text = (run / "answers.rank0.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line]
    again = "".join(json.dumps(line | {"text": f"{line['text']}0", "repeat": 1}) + "\n" for line in lines)
    for order in (again + text, text + again):
        (run / "answers.rank0.jsonl").write_text(order)
        assert not any(one.failure for task in read_run(run).tasks.values() for one in task.documents)


def test_an_answer_of_the_response_cache_without_an_account_has_no_score(run, tmp_path):
    """lmms-eval keeps texts only, under the model's arguments: retrained weights in the same folder are the same."""

    def from_the_cache(line):
        return line | {"token_counts": [None]} if line["doc_id"] in (1, 3) else line

    change_samples(run, from_the_cache)
    # The journal has what was said and what it cost: the run went on under the same conditions.
    documents = read_run(run).tasks["tiny_read"].documents
    assert [document.failure for document in documents] == [None] * 4
    assert documents[1].account == read_run(VANILLA).tasks["tiny_read"].documents[1].account
    # Other weights, or other libraries: the journal before was set aside, and what was cached is of it.
    lines = [json.loads(line) for line in (run / "answers.rank0.jsonl").read_text().splitlines() if line]
    shutil.move(run / "answers.rank0.jsonl", run / "answers.rank0.jsonl.old1")
    own = [line for line in lines if (line["task"], line["doc_id"]) not in (("tiny_read", 1), ("tiny_read", 3))]
    (run / "answers.rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in own))
    documents = read_run(run).tasks["tiny_read"].documents
    assert [document.answer is None for document in documents] == [False, True, False, True]
    assert "lmms-eval's response cache" in documents[1].failure
    report = write_report([(None, run)], table="tiny", out=tmp_path / "out", benchmarks=["Read", "Count"])
    assert "| Vanilla | failed |" in report.markdown.read_text()
    assert any("Vanilla, Read: 2 of 4 documents could not be answered" in note for note in report.table.notes)


def test_a_cached_answer_that_is_not_the_journals_is_none_of_the_runs(run):
    change_samples(run, lambda line: line | {"token_counts": [None], "filtered_resps": "0"})
    assert all(document.failure for document in read_run(run).tasks["tiny_read"].documents)


def test_the_word_none_out_of_the_cache_is_an_answer_where_its_tokens_were_counted(tmp_path):
    folder = write_run(
        tmp_path, {"tiny_read": [sample(0, 0.0, counts=[None]) | {"filtered_resps": "None"}]}, journal=False
    )
    (folder / "answers.rank0.jsonl").write_text(json.dumps(answer_line(0, "None")))
    (document,) = read_run(folder).tasks["tiny_read"].documents
    assert (document.answer, document.failure) == ("None", None)


def test_a_document_that_failed_keeps_its_own_reason(tmp_path):
    """A filter may make something out of the blank answer that lmms-eval is given."""
    unread = sample(0, 0.0, counts=[None]) | {"filtered_resps": "[invalid]"}
    folder = write_run(tmp_path, {"tiny_read": [unread]})
    failure = {"task": "tiny_read", "split": "test", "doc_id": 0, "reason": "no such picture"}
    (folder / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    assert read_run(folder).tasks["tiny_read"].documents[0].failure == "no such picture"


def test_a_journals_line_is_read_however_it_is_written(tmp_path):
    line = answer_line(0, 'he said ", "account": {"')
    texts = [json.dumps(line), json.dumps(line, separators=(",", ":")), json.dumps(line, sort_keys=True)]
    for text in texts:
        (tmp_path / "answers.rank0.jsonl").write_text(f'{text}\n\n{text[:-9]}\n{{"task": "other"')
        journal = read_journal(tmp_path, ["tiny_read"])
        (answered,) = journal["tiny_read"][0]
        assert answered.text == line["text"]
        assert answered.counts().tiles == 4


def test_a_strange_line_of_a_journal_is_named(tmp_path):
    for wrong in ({"text": 7}, {"doc_id": 1.5}, {"colour": "red"}, {"account": account() | {"compressed_tiles": 9}}):
        (tmp_path / "answers.rank0.jsonl").write_text(json.dumps(answer_line(0, "7") | wrong))
        with pytest.raises(ReportError, match=r"rank0\.jsonl, line 1"):
            read_journal(tmp_path)["tiny_read"][0][0].counts()
