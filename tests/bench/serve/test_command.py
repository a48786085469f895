"""The command against real HTTP servers, good and bad ones: what is counted, what is refused, what is written."""

import csv
import json
import os
import shutil
import signal

import pytest

from vico_eval.bench.random_models import flash_config
from vico_eval.bench.serve.workload import TABLE_4
from vico_eval.paths import models_dir

REQUESTS, ROUNDS, WARMUP = 10, 2, 1
"""What `run` asks for (conftest.py)."""


def failures(summary):
    """Kinds and counts over all cells."""
    total = {}
    for cell in summary["cells"]:
        for kind, failure in cell["failures"].items():
            total[kind] = total.get(kind, 0) + failure["count"]
    return total


def test_a_good_server_gets_exactly_what_table_4_says(run, start_server, make_server, tmp_path):
    server = start_server(make_server())
    status, _, summary = run(server.url)
    assert status == 0
    assert [cell["setting"]["prompt_tokens"] for cell in summary["cells"]] == [
        2624, 1984, 1344, 704, 3072, 2432, 1792, 1152
    ]  # fmt: skip
    assert {cell["num_ok"] for cell in summary["cells"]} == {REQUESTS}
    assert summary["is_complete"]
    assert failures(summary) == {}
    # Probes and warm-up are sent and not counted.
    asked = server.settings_asked()
    assert asked == {one.prompt_tokens: REQUESTS + WARMUP + (one.prompt_tokens in (704, 3072)) for one in TABLE_4}
    assert server.most_in_flight == 4
    # Caches keep blocks of 16 tokens and more.
    starts = [body["prompt"][:16] for body in server.bodies]
    assert len(set(starts)) == len(starts)
    body = server.bodies[-1]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 1, True)
    assert body["stream_options"] == {"include_usage": True}
    lines = [json.loads(line) for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    assert len(lines) == 8 * REQUESTS
    assert all(line["prompt_tokens"] == line["setting"]["prompt_tokens"] for line in lines)


def test_the_table_has_the_papers_numbers_beside_and_the_bound(run, start_server, make_server, tmp_path):
    run(start_server(make_server()).url, "--requests", 4)
    with (tmp_path / "out" / "table4.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows[:8]] == ["1.0", "1.29", "1.97", "3.76", "1.0", "1.3", "1.76", "2.77"]
    # The built-in model's tiles are not the paper's, so there is no bound behind its encoder.
    assert {(row["source"], row["quantity"]) for row in rows} == {
        (source, "llm_only") for source in ("paper", "bound", "measured")
    }
    own = [row for row in rows if row["source"] == "measured"]
    assert [float(row["value"]) for row in own if row["compression"] == "0"] == [1, 1]
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in own)
    tex = (tmp_path / "out" / "table4.tex").read_text()
    assert r"& 241B (paper) & 1.00 & 1.34 & 2.00 & 3.76 & -- & -- & -- & -- \\" in tex
    assert "| bound by operations | 1.00 | 1." in (tmp_path / "out" / "table4.md").read_text()


def test_the_bound_behind_the_encoder_comes_with_an_internvl_config(run, start_server, make_server, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(models_dir() / "vico-tiny-base", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    flash_config("8b").save_pretrained(folder)
    run(start_server(make_server()).url, "--requests", 2, tokenizer=folder)
    with (tmp_path / "out" / "table4.csv").open() as file:
        bounds = [row for row in csv.DictReader(file) if row["source"] == "bound"]
    found = {
        quantity: [row for row in bounds if row["quantity"] == quantity] for quantity in ("llm_only", "end_to_end")
    }
    assert [round(float(row["value"]), 2) for row in found["llm_only"]] == [1, 1.34, 2, 3.88, 1, 1.28, 1.76, 2.77]
    assert [round(float(row["value"]), 2) for row in found["end_to_end"][:4]] == [1, 1.27, 1.73, 2.66]


@pytest.mark.parametrize(
    ("fault", "every", "kind", "words"),
    [
        ("503", 10, "HTTP 503", "out of memory, try later"),
        ("hangs", 40, "timeout", "within 0.7 s"),
        ("cuts", 10, "cut stream", "RemoteProtocolError"),
        ("no stream", 10, "cut stream", '{"choices"'),
        ("stream error", 10, "error in the stream", "cuda says no"),
        ("empty", 10, "empty answer", "completion_tokens is 0"),
        ("no usage", 10, "no usage report", "no usage"),
        ("usage is a list", 10, "error in the stream", "usage is not an object"),
        ("negative usage", 10, "impossible usage report", "-861601"),
        ("ignores max_tokens", 10, "more tokens than max_tokens", "40 tokens, but only 1 were allowed"),
        ("miscounts", 10, "wrong prompt count", "but 2624 were sent"),
    ],
)
def test_what_some_requests_meet_is_counted_and_marked(run, start_server, make_server, fault, every, kind, words):
    server = start_server(make_server(fault=fault, every=every))
    status, err, summary = run(server.url, "--timeout", 0.7 if fault == "hangs" else 60)
    assert status == 1
    total = 8 * REQUESTS
    # The warm-up's 8 come before: of requests 9 to 88 each tenth fails.
    assert failures(summary) == {kind: total // every}
    assert words in err
    assert summary["is_complete"]
    assert sum(cell["num_ok"] for cell in summary["cells"]) == total - failures(summary)[kind]
    assert not all(cell["is_sound"] for cell in summary["cells"])


@pytest.mark.parametrize(("fault", "kind"), [("hangs", "timeout"), ("ignores max_tokens", "more tokens")])
def test_a_server_that_only_fails_is_given_up_without_a_number(run, start_server, make_server, fault, kind):
    server = start_server(make_server(fault=fault))
    status, err, summary = run(server.url, "--timeout", 0.3, "--requests", 200)
    assert status == 1
    assert f"INCOMPLETE: stopped by server, which failed 8 requests in a row: {kind}" in err
    assert not summary["is_complete"]
    assert len(server.bodies) < 20
    for cell in summary["cells"]:
        assert (cell["num_ok"], cell["requests_per_s"], cell["first_token_ms"]) == (0, 0, {})
        assert (cell["speedup"]["value"], cell["is_sound"]) == (None, False)


def test_tokens_that_the_server_adds_to_every_prompt_are_made_up_for(run, start_server, make_server):
    server = start_server(make_server(adds=3))
    status, _, summary = run(server.url)
    assert (status, failures(summary)) == (0, {})
    assert summary["servers"][0]["tokens_besides_ours"] == 3
    assert server.settings_asked()[2624 - 3] == REQUESTS + WARMUP


def test_ctrl_c_keeps_what_there_is(run, start_server, make_server, tmp_path):
    server = make_server(delay_s=0.05)
    answer, interrupted = server.answer, []

    async def answer_and_interrupt(request):
        # Once: a second Ctrl-C ends the command, and several requests may see the same number of bodies.
        if len(server.bodies) >= 40 and not interrupted:
            interrupted.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return await answer(request)

    server.answer = answer_and_interrupt
    start_server(server)
    before = signal.getsignal(signal.SIGINT)
    status, err, summary = run(server.url)
    assert status == 130
    assert "INCOMPLETE: stopped by Ctrl-C" in err
    assert signal.getsignal(signal.SIGINT) is before
    counted = sum(cell["num_requests"] for cell in summary["cells"])
    assert 0 < counted < 40
    assert failures(summary) == {}  # what was in flight is no failure
    assert counted == len((tmp_path / "out" / "requests.jsonl").read_text().splitlines())
    assert (summary["is_complete"], summary["stopped_by"]) == (False, "Ctrl-C")


def test_the_time_limit_keeps_what_there_is(run, start_server, make_server):
    server = start_server(make_server(delay_s=0.05))
    status, err, summary = run(server.url, "--seconds", 0.5, "--warmup", 0)
    assert status == 0
    assert "INCOMPLETE: stopped by the limit of 0.5 s" in err
    assert not summary["is_complete"]
    assert 0 < sum(cell["num_ok"] for cell in summary["cells"]) < 8 * REQUESTS
    first, last = summary["cells"][0], summary["cells"][-1]
    assert first["requests_per_s"] > 0
    assert last["speedup"] == {"value": None, "low": None, "high": None, "num_rounds": 0}


def test_servers_take_turns_and_are_compared_with_the_first(run, start_server, make_server, tmp_path):
    log = []
    for name in ("a", "b"):
        start_server(make_server(name=name, log=log))
    servers = make_server.made
    pairs = [f"{server.name}={server.url}/v1/" for server in servers]
    status, _, summary = run("--compare", pairs[0], "--compare", pairs[1])
    assert status == 0
    turns = [log[0]]
    for name in log:
        if name != turns[-1]:
            turns.append(name)
    # Probes, the warm-up's eight settings, and two rounds of them: a and b in turn.
    assert turns == ["a", "b"] * (1 + 8 * (1 + ROUNDS))
    assert [cell["server"] for cell in summary["cells"]] == ["a"] * 8 + ["b"] * 8
    assert {cell["versus_first"]["value"] for cell in summary["cells"][:8]} == {1.0}
    assert all(cell["versus_first"]["num_rounds"] == ROUNDS for cell in summary["cells"])
    assert "b against a" in (tmp_path / "out" / "table4.tex").read_text()


def test_images_are_sent_as_data_with_a_question_and_count_end_to_end(run, start_server, make_server, tmp_path):
    from PIL import Image

    (tmp_path / "pics").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (20, 10)).save(tmp_path / "pics" / name)
    server = start_server(make_server())
    status, err, summary = run(server.url, "--images", tmp_path / "pics", "--max-tokens", 3, tokenizer=None)
    assert status == 0
    assert "2 images for 10 requests" in err
    (cell,) = summary["cells"]
    assert (cell["num_ok"], cell["output_tokens"], cell["prompt_tokens_per_s"] > 0) == (10, 30, True)
    assert set(cell["inter_token_ms"]) == {"p50", "p90", "p99"}
    systems = [body["messages"][0]["content"] for body in server.bodies]
    assert len(set(systems)) == len(systems)
    image, text = server.bodies[-1]["messages"][1]["content"]
    assert image["image_url"]["url"].startswith(("data:image/png;base64,iVBOR", "data:image/jpeg;base64,/9j/"))
    assert text["type"] == "text"
    with (tmp_path / "out" / "images.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["server"], row["against"], row["value"], row["rounds"]) == ("server", "server", "1.0", str(ROUNDS))
    assert float(row["first_tokens_per_s"]) == cell["requests_per_s"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"summary.json", "requests.jsonl", "images.csv", "images.tex", "images.md"}


def test_a_server_that_is_down_is_said_before_the_load(run, tmp_path):
    status, err, summary = run("http://127.0.0.1:9")
    assert (status, summary) == (1, None)
    assert "no server answers at http://127.0.0.1:9" in err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({}, ["--model", "huge"], 'HTTP 404, {"error":"there is no huge here"}. It does not list this model.'),
        ({"models": ("a", "b")}, [], "lists 2 models: a, b. Choose a model with --model"),
        ({"models": ()}, [], "lists no model"),
        ({"fault": "no usage", "every": -1}, [], "reports no usage"),
    ],
)
def test_a_server_that_cannot_be_measured_is_said_before_the_load(
    run, start_server, make_server, settings, arguments, message
):
    server = make_server(**settings)
    if settings.get("every") == -1:  # from the first probe on
        server.every, server.bodies = 1, [{"prompt": ""}] * 10
    status, err, summary = run(start_server(server).url, *arguments)
    assert (status, summary) == (1, None)
    assert message in err


def test_a_tokenizer_of_another_checkpoint_is_said_before_the_load(run, start_server, make_server):
    server = make_server()
    real = server.stream

    def stream(body, fault):
        return real(body | {"prompt": body["prompt"][::2]}, fault)

    server.stream = stream
    status, err, summary = run(start_server(server).url)
    assert (status, summary) == (1, None)
    assert "-1536 tokens in the longest prompt and -352 in the shortest" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the address of one server, or --compare"),
        (["http://a", "--compare", "a=http://a"], "not both"),
        (["--compare", "http//a"], "expected NAME=URL"),
        (["--compare", "a=http://a", "--compare", "a=http://b"], "each name once"),
        (["http://a", "--images", "nowhere"], "nowhere has no images"),
        (["nonsense"], "no server answers at nonsense"),
    ],
)
def test_wrong_options_are_said(run, arguments, message):
    status, err, _ = run(*arguments)
    assert status == 1
    assert message in err


def test_text_needs_a_tokenizer_that_exists(run):
    assert "give --tokenizer" in run("http://a", tokenizer=None)[1]
    assert "no tokenizer 'no/where'" in run("http://a", tokenizer="no/where")[1]


@pytest.mark.parametrize("auto", ["AutoTokenizer", "AutoConfig"])
def test_code_in_a_tokenizers_folder_is_not_run_whatever_is_answered(run, tmp_path, monkeypatch, capsys, auto):
    folder = tmp_path / "checkpoint"
    shutil.copytree(models_dir() / "vico-tiny-base", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "new", "auto_map": {"AutoConfig": "code.Config"}}))
    if auto == "AutoTokenizer":
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "New", "auto_map": {"AutoTokenizer": ["code.New", None]}})
        )
    monkeypatch.setattr("builtins.input", lambda _="": pytest.fail("asked whether to run the folder's code"))
    status, err, _ = run("http://127.0.0.1:9", tokenizer=folder)
    assert status == 1
    expected = "a tokenizer that needs code of its own is not run" if auto == "AutoTokenizer" else "no server answers"
    assert expected in err
    assert not (tmp_path / "ran").exists()


def test_a_measurement_is_not_overwritten(run, start_server, make_server):
    server = start_server(make_server())
    assert run(server.url, "--requests", 2)[0] == 0
    asked = len(server.bodies)
    status, err, _ = run(server.url)
    assert status == 1
    assert "already holds a measurement" in err
    assert len(server.bodies) == asked
