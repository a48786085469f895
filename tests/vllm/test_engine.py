"""engine=vllm gives the answers and accounts of engine=transformers, by servers and in one process."""

import json
import os
import shutil
import subprocess

import pytest

import vico_eval
from vico_eval.engine.requests import GenerationSettings, Text, VideoInput
from vico_eval.errors import ConfigError, DocumentError
from vico_eval.methods.registry import build

from ..methods.systems import SYSTEMS, picture, request  # noqa: TID252 - one list for all properties
from .servers import SETTINGS, VllmServer

NOT_OF_VICO = ("pvtc", "lvtc", "vanilla_vir", "max_pixels")
"""Methods of other checkpoints."""


def systems():
    """Those that vLLM can decode for, on ViCO's checkpoint: every connector and selection method among them."""
    for name, (method, arguments) in SYSTEMS.items():
        if not set(method.split("+")) & set(NOT_OF_VICO) and build(method, arguments).decoder is None:
            yield name, {"method": method, **arguments}


@pytest.fixture(scope="module")
def requests(tmp_path_factory, write_video):
    film = tmp_path_factory.mktemp("films") / "film.mp4"
    write_video(film, num_frames=8)
    return [
        request(0, picture(2, 1, seed=0), Text("What number is shown?")),
        request(1, picture(1, 1, seed=1), picture(3, 1, seed=2), Text("Which of them is brighter?")),
        request(2, Text("Hello")),
        request(3, VideoInput(str(film)), Text("What moves?")),
        request(4, picture(1, 2, seed=3), Text("x"), settings=GenerationSettings(max_new_tokens=12, until=("1", "2"))),
        request(5, picture(1, 1, seed=4), Text("Read it."), settings=GenerationSettings(max_new_tokens=1)),
    ]


def compare(methods, requests, **arguments):
    return vico_eval.compare("vico-tiny", methods, requests, batch_size=3, device="cpu", num_frames=4, **arguments)


def test_every_method_has_the_same_answers_and_accounts(vllm_server, requests):
    names, methods = zip(*systems(), strict=True)
    assert {"vico", "random", "pool", "divprune", "visionzip", "holov", "vico+divprune"} <= set(names)
    expected = compare(methods, requests)
    found = compare(methods, requests, engine="vllm", server=vllm_server.url)
    for name, ours, theirs in zip(names, expected, found, strict=True):
        assert theirs == ours, name
    assert all(answer.seconds.own > 0 for row in found for answer in row)
    assert len({answer.text for row in found for answer in row}) > 3


SAMPLED = GenerationSettings(max_new_tokens=12, do_sample=True, temperature=1.5, top_p=0.95, seed=3)


def test_sampled_answers_are_the_same_again_whoever_else_is_asked(vllm_server):
    asked = [request(number, picture(1, 1, seed=number), Text("?"), settings=SAMPLED) for number in range(6)]
    served = {"engine": "vllm", "server": vllm_server.url}
    (first,) = compare(["vico"], asked, **served)
    (again,) = compare(["vico"], asked[::-1], **served)
    assert [answer.text for answer in again[::-1]] == [answer.text for answer in first]
    assert len({answer.text for answer in first}) > 1


def test_two_servers_share_the_prompts_and_one_that_dies_is_dropped(vllm_server, start_server, requests, caplog):
    from loguru import logger

    other: VllmServer = start_server("vico-tiny")
    asked = [
        request(number, picture(1, 1, seed=number % 5), Text("Go"), settings=GenerationSettings(max_new_tokens=24))
        for number in range(60)
    ]
    expected = compare(["vico"], asked)
    model = vico_eval.load(
        "vico-tiny", "vico", device="cpu", engine="vllm", server=f"{vllm_server.url}/{other.url}", batch_size=3
    )
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING")
    answers = {}
    try:
        for number, outcome in model.engine.outcomes(asked):
            answers[number] = outcome
            if len(answers) == 3:
                other.kill()
    finally:
        logger.remove(sink)
    assert [answers[number] for number in range(len(asked))] == expected[0]
    assert any("is dropped" in words and other.url in words for words in said)
    assert any("1 of 2 vLLM servers were lost" in words for words in said)


def test_what_a_server_cannot_do_is_said_before_or_for_its_document(vllm_server, requests):
    served = {"engine": "vllm", "server": vllm_server.url}
    beams = request(0, Text("x"), settings=GenerationSettings(max_new_tokens=2, num_beams=2))
    with pytest.raises(ConfigError, match="num_beams=2 isn't possible with engine=vllm"):
        compare(["vico"], [beams], **served)
    penalty = request(0, Text("x"), settings=GenerationSettings(max_new_tokens=2, repetition_penalty=1.2))
    with pytest.raises(ConfigError, match=r"repetition_penalty=1.2 isn't possible with a vLLM server"):
        compare(["vico"], [penalty], **served)
    with pytest.raises(ConfigError, match=r"FastV.*Pass engine=transformers"):
        compare(["vico", "vico+fastv"], requests, **served)


def test_a_server_of_another_model_is_refused(base_server, decoder_of, start_server, tmp_path):
    with pytest.raises(ConfigError, match="the decoder of another checkpoint than vico-tiny"):
        vico_eval.load("vico-tiny", engine="vllm", server=base_server.url)
    # Where its folder can't be looked at, by what it makes of ids and of embeddings.
    copy = tmp_path / "decoder"
    shutil.copytree(decoder_of("vico-tiny-base"), copy)
    (copy / "export.json").unlink()
    server = VllmServer(base_server.python, copy, tmp_path / "log")
    try:
        server.start()
        server.wait()
        with pytest.raises(ConfigError, match="can't decode for vico-tiny; it may serve another model: ids give token"):
            vico_eval.load("vico-tiny", engine="vllm", server=server.url)
    finally:
        server.kill()


def test_a_server_without_embeddings_or_with_little_room(start_server, requests):
    without = start_server("vico-tiny", "--max-model-len", "256")
    with pytest.raises(ConfigError, match="Start the server with --enable-prompt-embeds"):
        vico_eval.load("vico-tiny", engine="vllm", server=without.url)
    without.options = (*without.options, "--enable-prompt-embeds")
    without.restart()
    long = request(9, *(picture(3, 3, seed=seed) for seed in range(2)), Text("Long"))
    (answers,) = compare(["vanilla"], [requests[0], long], engine="vllm", server=without.url, max_tiles=9)
    assert answers[0].account.visual_tokens > 0
    assert isinstance(answers[1], DocumentError)
    assert "vLLM was started for 256" in str(answers[1])
    without.kill()
    with pytest.raises(ConfigError, match="no vLLM server responds at"):
        vico_eval.load("vico-tiny", engine="vllm", server=without.url)


SCRIPT = """\
import json, sys
import vico_eval

if __name__ == "__main__":
    asked = [
        vico_eval.request(question, key=question, max_new_tokens=16, **settings)
        for question, settings in json.load(sys.stdin)
    ]
    answers = {}
    for engine in ("transformers", "vllm"):
        (row,) = vico_eval.compare(sys.argv[1], ["vico"], asked, engine=engine, device="cpu", batch_size=4)
        answers[engine] = [[answer.text, answer.account.to_dict()] for answer in row]
    print("ANSWERS", json.dumps(answers))
"""

IN_PROCESS = [(f"Tell me of {word}.", {"repetition_penalty": penalty}) for word in "abcd" for penalty in (1.0, 50.0)]


def test_in_one_process_too_also_with_a_repetition_penalty(vllm_python, untrained, tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [str(vllm_python), str(script), str(untrained / "vico")],
        input=json.dumps(IN_PROCESS),
        env=os.environ | SETTINGS | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")] or [done.stderr[-3000:]]
    answers = json.loads(line.removeprefix("ANSWERS "))
    assert answers["vllm"] == answers["transformers"]
    texts = [text for text, _ in answers["vllm"]]
    assert texts[::2] != texts[1::2]  # the penalty changes something
    assert done.returncode == 0


def test_without_vllm_nothing_is_loaded_in_vain():
    with pytest.raises(ConfigError, match="vllm is not installed here"):
        vico_eval.load("vico-tiny", engine="vllm")
    with pytest.raises(ConfigError, match="no server answers at nowhere"):
        vico_eval.load("vico-tiny", engine="vllm", server="nowhere")
