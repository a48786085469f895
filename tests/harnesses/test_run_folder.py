"""What a run's folder keeps, sets aside and refuses; no model is loaded."""

import json
import subprocess
import sys

import pytest
from loguru import logger
from PIL import Image

from vico_eval.engine.requests import (
    DeferredRequest,
    GenerationSettings,
    ImageInput,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.errors import OutputError, ReportError
from vico_eval.harnesses.earlier_answers import Asking, answer_keys, asked_by, take_over
from vico_eval.harnesses.lmms_eval.data_sets import split_fingerprint
from vico_eval.runs.read import read_record
from vico_eval.runs.schema import Checkpoint, RunRecord, StoredAnswer, StoredFailure, TokenAccount
from vico_eval.runs.write import Asked, RunFolder

RECORD = RunRecord(
    version=2,
    system="vico",
    title="ViCO",
    command=("python", "-m", "lmms_eval"),
    versions={"python": "3.11.9", "vico_eval": "0.1.0", "torch": "2.15.0"},
    commits=("1c0540b",),
    checkpoint=Checkpoint(name="vico-tiny", path="models/vico-tiny", sha256="tensors:ab"),
    donor=None,
    method="vico",
    method_args={"absolute_threshold": 0.5},
    dtype="float32",
    attention="sdpa",
    device="cpu",
    num_processes=1,
    started="2026-01-01T00:00:00+00:00",
    harness="lmms-eval",
)


@pytest.fixture
def said():
    """What was logged at WARNING and above."""
    messages = []
    number = logger.add(messages.append, level="WARNING", format="{message}")
    yield messages
    logger.remove(number)


@pytest.fixture
def start(tmp_path):
    """A run in the same folder, as a command that is repeated would have it."""

    def open_folder(rank=0, resume=True, **conditions):
        run = RunFolder(tmp_path, RECORD.model_copy(update=conditions), rank, resume=resume)
        run.write_record()
        return run

    return open_folder


def account(**changes):
    counts = {"tiles": 1, "compressed_tiles": 0, "visual_tokens": 4, "visual_tokens_uncompressed": 4}
    rest = {"visual_tokens_per_layer": (4, 4), "text_tokens": 3, "generated_tokens": 2, "media": "1f2e"}
    return TokenAccount(**{**counts, **rest, **changes})


def key(number):
    return f"read/test/{number}", 0, "asked"


def texts(run):
    return {int(name.rpartition("/")[2]): answer.text for (name, *_), answer in run.answers.items()}


def answer_three(run, numbers=range(3)):
    for number in numbers:
        run.add(key(number), str(number), account(), Asked("words", None))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:20] + b"\xff" + line[20:],
        lambda line: line[:-9],
        lambda line: line + b"\0" * 64,
        lambda line: b"\0" * len(line),
        lambda line: b'{"task": "read"}',
        lambda line: b"[" * 100_000,
        lambda line: line.replace(b'"p_compress": null', b'"p_compress": [NaN]'),
    ],
    ids=["a bad byte", "cut off", "zeros behind it", "zeros", "of another kind", "too deep", "not a number"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_cannot_be_read_is_named_and_set_aside_and_the_others_hold(start, tmp_path, said, spoil, place):
    answer_three(start())
    file = tmp_path / "answers.rank0.jsonl"
    lines = file.read_bytes().splitlines()
    lines[place] = spoil(lines[place])
    file.write_bytes(b"\n".join(lines))  # the last one without its end
    run = start()
    assert texts(run) == {number: str(number) for number in range(3) if number != place}
    assert any(f"{file}, line {place + 1} can't be read: " in message for message in said)
    assert any("moved 1 unreadable line(s) to answers.rank0.jsonl.bad" in message for message in said)
    assert (tmp_path / "answers.rank0.jsonl.bad").read_bytes() == lines[place] + b"\n"
    answer_three(run, [place])
    said.clear()
    assert texts(start()) == {0: "0", 1: "1", 2: "2"}
    assert not said


def test_a_line_of_failures_that_cannot_be_read_is_set_aside_too(start, tmp_path):
    start().add_failure(key(0), "no picture")
    file = tmp_path / "failures.rank0.jsonl"
    file.write_bytes(file.read_bytes() + b"\xff\n")
    assert start().failed == {"read/test/0"}
    assert (tmp_path / "failures.rank0.jsonl.bad").read_bytes() == b"\xff\n"


def test_the_last_line_of_a_document_holds(start):
    run = start()
    run.add(key(0), "first", account())
    run.add(key(0), "second", account())
    assert texts(start()) == {0: "second"}


def test_fewer_processes_take_over_the_answers_of_more(start, tmp_path):
    first, second = start(0), start(1)
    answer_three(first, [0, 2])
    answer_three(second, [1])
    assert texts(start()) == {0: "0", 1: "1", 2: "2"}
    assert (tmp_path / "answers.rank1.jsonl").exists()


def test_a_run_of_other_conditions_sets_aside_every_process_answers_and_the_record(start, tmp_path, said):
    answer_three(start(0), [0])
    answer_three(start(1), [1])
    start(1).add_failure(key(2), "no picture")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith(".")}
    run = start(dtype="bfloat16", attention="eager")
    assert not run.answers
    assert "it has another dtype, attention. Its files were renamed to answers.rank0.jsonl.old1" in said[-1]
    assert {f"{name}.old1" for name in before} == {path.name for path in tmp_path.glob("*.old1")}
    assert all((tmp_path / f"{name}.old1").read_bytes() == content for name, content in before.items())
    answer_three(run, [0])
    start()
    assert (tmp_path / "answers.rank0.jsonl.old2").exists()


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "sta', b"\xff\xfe", b"[]", b'{"a": 1}', b"\0\0", None])
def test_a_record_that_cannot_be_read_is_named_and_set_aside_with_its_answers(start, tmp_path, said, content):
    answer_three(start())
    record = tmp_path / "record.json"
    if content is None:
        record.unlink()
    else:
        record.write_bytes(content)
        with pytest.raises(ReportError, match=str(record)):
            read_record(tmp_path)
    assert not start().answers
    reason = "it has no record.json" if content is None else str(record)
    assert reason in said[-1]
    assert "every document is asked again" in said[-1]
    assert len((tmp_path / "answers.rank0.jsonl.old1").read_text().splitlines()) == 3
    assert content is None or (tmp_path / "record.json.old1").read_bytes() == content
    assert json.loads(record.read_text())["started"] == "2026-01-01T00:00:00+00:00"


def test_two_commands_do_not_write_into_one_folder(start, tmp_path):
    code = (
        "import sys; from pathlib import Path; from vico_eval.files import lock; "
        "held = lock(Path(sys.argv[1]) / '.lock'); held.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"another command is using {tmp_path}.*pass another record_dir"):
            start()
        other.kill()
    start()
    start()  # the same process may open it again


def test_lines_and_record_are_what_the_report_reads(start, tmp_path):
    run = start()
    run.add(key(0), "0", account(), Asked("words", "files"))
    run.add_failure(key(1), "no picture")
    assert StoredAnswer.model_validate_json((tmp_path / "answers.rank0.jsonl").read_text()).files == "files"
    assert StoredFailure.model_validate_json((tmp_path / "failures.rank0.jsonl").read_text()).reason == "no picture"
    assert read_record(tmp_path) == RECORD


def test_data_that_changed_are_named(start, tmp_path):
    start().add_data_sets({"read": "sha256 1", "count": "sha256 1"}, {"read": "abc"})
    found = {"read": "sha256 2", "count": "sha256 1", "more": "sha256 1"}
    assert start().changed_data_sets(found) == ("read",)
    start().add_data_sets({"read": "sha256 2", "more": "sha256 1"}, {"more": "def"})
    assert start().changed_data_sets(found) == ()
    known = json.loads((tmp_path / "record.json").read_text())["data_sets"]
    assert known == {"read": "sha256 2", "count": "sha256 1", "more": "sha256 1"}


class Split:
    """As much of a split of `datasets` as its fingerprint needs."""

    def __init__(self, *files, fingerprint="f"):
        self.cache_files = [{"filename": str(file)} for file in files]
        self._fingerprint = fingerprint


def test_data_are_known_by_revision_or_content(tmp_path):
    commit = tmp_path / ("0123456789" * 4)
    commit.mkdir()
    assert split_fingerprint(Split(commit / "x.arrow")) == f"revision {commit.name}"  # which need not be read
    arrow = tmp_path / "x.arrow"
    arrow.write_bytes(b"one")
    before = split_fingerprint(Split(arrow))
    assert before.startswith("sha256 ")
    arrow.write_bytes(b"two")
    assert split_fingerprint(Split(arrow)) != before
    assert split_fingerprint(Split()) == "datasets f"
    assert split_fingerprint([{"path": "a.png"}]) is None


def request(*parts, **settings):
    return Request("read/test/0", (Message("user", parts),), **settings)


def test_all_words_and_how_pictures_stand_among_them_are_what_is_asked():
    picture = Image.new("RGB", (8, 8))
    asked = [
        request(ImageInput(picture), Text("What?")),
        request(Text("What?"), ImageInput(picture)),
        request(ImageInput(picture, is_inline=True), Text("What?")),
        request(ImageInput(picture), Text("What"), Text("?")),
        request(ImageInput(picture), ImageInput(picture), Text("What?")),
        request(VideoInput("a.mp4"), Text("What?")),
        request(VideoInput("a.mp4", start_s=1.0), Text("What?")),
        request(ImageInput(picture), Text("What?"), max_tiles=3),
        request(ImageInput(picture), Text("What?"), total_max_tiles=3),
        Request("k", (Message("system", (Text("Say."),)), Message("user", (ImageInput(picture), Text("What?"))))),
    ]
    assert len({asked_by(one).words for one in asked}) == len(asked)
    assert asked_by(request(ImageInput(picture), Text("What?"))) == asked_by(asked[0])


def test_a_film_that_is_the_same_file_is_not_decoded_to_be_known(start, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"a film")
    (tmp_path / "run").mkdir()
    deferred = DeferredRequest(
        "read/test/0", GenerationSettings(), lambda: request(VideoInput(str(film)), Text("What?"))
    )
    (asked_as,) = answer_keys([deferred], ["What?"])
    decoded = []

    class Tiles:
        media = "1f2e"

    def prepare(made):
        decoded.append(made.key)
        return Tiles

    prepare.tiling = ""
    run = start()
    run.add(asked_as, "0", account(), asked_by(deferred.load()))

    def is_taken_over():
        return bool(take_over(start(), [asked_as], Asking([deferred]), prepare))

    assert is_taken_over()
    assert not decoded
    film.write_bytes(b"a film")  # written anew: its tiles are compared, and are the same
    assert is_taken_over()
    assert decoded == ["read/test/0"]
    film.write_bytes(b"A film")
    Tiles.media = "another"
    assert not is_taken_over()
    film.unlink()
    run.add(asked_as, "0", account(), Asked("words", "files"))
    assert not is_taken_over()  # it is asked again, and fails by name


def test_an_answer_to_another_question_about_the_document_is_set_aside(start, tmp_path, said):
    run = start()
    run.add(("read/test/0", 0, "earlier"), "0", account())
    run.add(("read/test/1", 0, "earlier"), "1", account())
    deferred = DeferredRequest("read/test/0", GenerationSettings(), lambda: request(Text("What?")))
    again = start()
    assert not take_over(again, answer_keys([deferred], ["What?"]), Asking([deferred]), None)
    assert "the text or images of 1 document(s) have changed" in said[-1]
    assert texts(again) == texts(start()) == {1: "1"}  # which this process was not asked
    assert json.loads((tmp_path / "answers.rank0.jsonl.stale").read_text())["text"] == "0"


def test_what_only_a_loaded_model_says_is_what_the_record_says_until_then(start, tmp_path, said):
    answer_three(start(device="cuda:1"))
    run = start(dtype="unknown", device="unknown")
    assert len(run.answers) == 3
    assert not said
    record = read_record(tmp_path)
    assert (record.dtype, record.device, record.answered_with) == ("float32", "cuda:1", ())
    run.note_model(dtype="float32", device="cuda:0", answered_with=[tmp_path.parent / "other"])
    run.write_record()
    record = read_record(tmp_path)
    assert (record.device, record.answered_with) == ("cuda:0", ("../other",))
    run.close()
    start(dtype="unknown", device="unknown")
    assert read_record(tmp_path).answered_with == ("../other",)


def test_a_folder_that_is_let_go_of_can_be_had_by_another(tmp_path):
    RunFolder(tmp_path, RECORD).close()
    code = (
        "import sys; from pathlib import Path; from filelock import FileLock; "
        "FileLock(Path(sys.argv[1]) / '.lock').acquire(timeout=0)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 0
