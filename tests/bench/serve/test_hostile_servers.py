"""Servers that send too much, too slowly, or what is no answer: each is a failed request, and none is waited for."""

import asyncio
import gzip
import itertools
import json
import socketserver
import threading
import time

import httpx
import pytest

from vico_eval import server_reading as reading
from vico_eval.bench.serve import client as client_module
from vico_eval.bench.serve.answer import AnswerStream
from vico_eval.bench.serve.client import Client, Server, Target, look_at, open_connections
from vico_eval.bench.serve.workload import Request
from vico_eval.errors import ConfigError
from vico_eval.server_address import Address, Redactor
from vico_eval.server_reading import MAX_DEPTH, UnreadableAnswer, read_json, read_lines

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
PLAIN = OK + b"\r\n"
TEXT = b'data: {"choices": [{"text": "a", "finish_reason": "length"}]}\n\n'
GOOD = PLAIN + TEXT + b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\ndata: [DONE]\n\n'
TIMEOUT_S = 0.5


def usage(text):
    return PLAIN + TEXT + b'data: {"usage": ' + text.encode() + b"}\n\ndata: [DONE]\n\n"


@pytest.fixture
def serve_bytes():
    """Starts a server that answers each request with the next of these parts of bytes, and says its address."""
    running = []

    def start(*answers):
        left = itertools.chain(answers[:-1], itertools.repeat(answers[-1]))

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                length = 0
                while (line := self.rfile.readline()).strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                self.rfile.read(length)
                answer = next(left)
                try:
                    for part in [answer] if isinstance(answer, bytes) else answer():
                        self.wfile.write(part)
                        self.wfile.flush()
                except OSError:
                    pass  # the client has had enough

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(url, *, times=1, timeout_s=60):
    """The last of so many outcomes."""

    async def run():
        async with open_connections(1, None) as connections:
            client = Client(
                Server(name="server", url=url, model="m", is_listed=True),
                Target(Address.parse(url), "m"),
                connections,
                max_tokens=1,
                timeout_s=timeout_s,
                zero=time.perf_counter(),
                redactor=Redactor(),
            )
            for _ in range(times):
                outcome = await client.ask(Request("/v1/completions", {"prompt": "abc"}, 3))
            return outcome

    return asyncio.run(run())


def endless(start, part, pause_s=0.0):
    def answer():
        yield start
        while True:
            yield part
            time.sleep(pause_s)

    return answer


@pytest.mark.parametrize(
    ("answer", "failure", "words"),
    [
        (usage("[1]"), "error in the stream", "usage is not an object"),
        (usage("3"), "error in the stream", "usage is not an object"),
        (PLAIN + b"data: " + 100_000 * b"[" + b"\n\n", "error in the stream", "invalid JSON"),
        (PLAIN + b'data: {"a":' + 40 * b"[" + 40 * b"]" + b"}\n\n", "error in the stream", "more than 32 levels"),
        (PLAIN + b"data: [[[[\n\n", "error in the stream", "[[[["),
        (PLAIN + b'data: {"choices": {"text": "a"}}\n\n', "error in the stream", "choices is not a list of objects"),
        (PLAIN + b'data: {"choices": [{"text": 7}]}\n\n', "error in the stream", "a text is not a string"),
        (PLAIN + b'data: {"choices": [{"delta": [1]}]}\n\n', "error in the stream", "a delta is not an object"),
        (PLAIN + b'data: "text"\n\n', "error in the stream", "an event is not an object"),
        (usage('{"prompt_tokens": 3, "completion_tokens": NaN}'), "error in the stream", "NaN"),
        (usage('{"prompt_tokens": 3, "completion_tokens": -861601}'), "impossible usage report", "-861601"),
        (usage('{"prompt_tokens": -1, "completion_tokens": 1}'), "impossible usage report", "-1"),
        (usage('{"prompt_tokens": 0, "completion_tokens": 1}'), "impossible usage report", "0"),
        (usage('{"prompt_tokens": true, "completion_tokens": 1}'), "impossible usage report", "true"),
        (usage('{"prompt_tokens": "3", "completion_tokens": 1}'), "impossible usage report", '"3"'),
        (usage('{"prompt_tokens": 3.0, "completion_tokens": 1}'), "impossible usage report", "3.0"),
        (usage('{"prompt_tokens": 3, "completion_tokens": 1e999}'), "impossible usage report", "Infinity"),
        (usage(f'{{"prompt_tokens": {10**40}, "completion_tokens": 1}}'), "impossible usage report", "10000"),
        (usage(f'{{"prompt_tokens": {"9" * 5000}, "completion_tokens": 1}}'), "error in the stream", "invalid JSON"),
        (usage("{}"), "no usage report", "no usage"),
        (GOOD.replace(TEXT, b""), "no token in the stream", "no text was sent"),
        (b"HTTP/1.1 307 Gone\r\nLocation: http://xn--/\r\nContent-Length: 0\r\n\r\n", "cut stream", "IDNAError"),
        (b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", "HTTP 302", ""),
        (OK + b"X: " + 200_000 * b"x" + b"\r\n\r\n", "cut stream", "RemoteProtocolError"),
        (b"SSH-2.0-OpenSSH\r\n", "cut stream", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "cut stream", "RemoteProtocolError"),
        (OK + b"Content-Length: -1\r\n\r\n", "cut stream", "RemoteProtocolError"),
    ],
)
def test_what_is_no_answer_is_a_failed_request_with_its_reason(serve_bytes, answer, failure, words):
    outcome = ask(serve_bytes(answer))
    assert outcome.failure == failure
    assert words in outcome.words
    assert len(outcome.words) <= client_module.MAX_WORDS
    assert outcome.prompt_tokens in (None, 3)
    assert outcome.output_tokens in (None, 1)


def test_a_good_answer_in_single_bytes_is_read_as_any_other(serve_bytes):
    body = GOOD.removeprefix(PLAIN).replace(b"\n", b"\r\n")

    def one_by_one():
        yield from (letter.to_bytes(1, "big") for letter in PLAIN + body)

    for answer in (GOOD, one_by_one):
        outcome = ask(serve_bytes(answer))
        assert (outcome.failure, outcome.prompt_tokens, outcome.output_tokens) == ("", 3, 1)


@pytest.mark.parametrize(
    "answer",
    [
        endless(PLAIN, b"d", pause_s=0.02),
        endless(PLAIN, TEXT, pause_s=0.02),
        endless(PLAIN + GOOD.partition(PLAIN)[2], b": still there\n", pause_s=0.02),
        endless(b"HTTP/1.1 503 Busy\r\n\r\n", b"x", pause_s=0.02),
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", pause_s=0.02),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.001),
    ],
    ids=["a byte", "text", "comments", "error", "header", "continue"],
)
def test_an_answer_that_drips_is_given_up_by_the_clock_not_by_the_read(serve_bytes, answer):
    started = time.perf_counter()
    assert ask(serve_bytes(answer), timeout_s=TIMEOUT_S).failure == "timeout"
    assert time.perf_counter() - started < TIMEOUT_S + 10


@pytest.mark.parametrize(
    ("answer", "failure", "words"),
    [
        (endless(PLAIN, 2**16 * b"x"), "unreadable answer", "a line of the stream has more than"),
        (endless(PLAIN, b"data: " + 2**15 * b"[" + b"\n"), "unreadable answer", "the answer has more than"),
        (endless(b"HTTP/1.1 500 Oh\r\n\r\n", 2**16 * b"x"), "HTTP 500", "xxx"),
    ],
)
def test_no_more_is_read_than_an_answer_can_have(serve_bytes, monkeypatch, answer, failure, words):
    monkeypatch.setattr(reading, "MAX_STREAM_BYTES", 2**22)
    outcome = ask(serve_bytes(answer))
    assert outcome.failure == failure
    assert words in outcome.words


def test_no_buffer_grows_beyond_one_line():
    sent = []

    async def body():
        while True:
            sent.append(2**16)
            yield 2**16 * b"x"

    async def read():
        async for _ in read_lines(httpx.Response(200, content=body())):
            pass

    with pytest.raises(UnreadableAnswer, match="a line of the stream"):
        asyncio.run(read())
    assert sum(sent) <= reading.MAX_LINE_BYTES + 2 * 2**16


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oh"])
def test_a_bomb_is_not_unpacked(serve_bytes, status):
    bomb = gzip.compress(2**26 * b"x", 9)
    head = b"HTTP/1.1 " + status + b"\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    outcome = ask(serve_bytes(head + bomb))
    assert outcome.failure == ("unreadable answer" if status == b"200 OK" else "HTTP 500")
    assert "the answer is compressed although that was not requested" in outcome.words


def test_no_cookie_comes_back(serve_bytes, monkeypatch):
    sent = []
    send = httpx.AsyncClient.send

    async def look(self, request, **options):
        sent.append(request.headers)
        return await send(self, request, **options)

    monkeypatch.setattr(httpx.AsyncClient, "send", look)
    assert ask(serve_bytes(GOOD.replace(b"Connection", b"Set-Cookie: a=b\r\nConnection", 1)), times=2).failure == ""
    assert [("cookie" in headers, headers["accept-encoding"]) for headers in sent] == 2 * [(False, "identity")]


def look(url, model=None):
    async def run():
        async with open_connections(1, None) as connections:
            return await look_at(connections[0], "server", Address.parse(url), model, Redactor())

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (endless(PLAIN, b" ", pause_s=0.02), "did not list its models within 0.3 s"),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.001), "did not list its models within 0.3 s"),
        (endless(PLAIN, 2**16 * b"["), "sent an unreadable list of models: the answer has more than"),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(2**24 * b"x"), "the answer is compressed"),
        (b"SSH-2.0-OpenSSH\r\n", "no server answers at"),
        (PLAIN + 100_000 * b"[", "lists no model"),
        (PLAIN + b'{"data": [{"id": [1]}, 7]}', "lists no model"),
        (PLAIN + b"[]", "lists no model"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n", "It redirects to another address"),
        (
            PLAIN + json.dumps({"data": [{"id": f"m{n}"} for n in range(500)]}).encode(),
            "m19 and 480 more. Choose a model with",
        ),
    ],
)
def test_what_is_no_list_of_models_is_said_in_time(serve_bytes, monkeypatch, answer, message):
    monkeypatch.setattr(client_module, "LOOK_S", 0.3)
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=message) as error:
        look(serve_bytes(answer))
    assert time.perf_counter() - started < 20
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("version", [endless(PLAIN, b" ", pause_s=0.02), PLAIN + 100_000 * b"[", PLAIN + b"[]"])
def test_a_version_is_not_waited_for(serve_bytes, monkeypatch, version):
    monkeypatch.setattr(client_module, "LOOK_S", 0.3)
    server, target = look(serve_bytes(PLAIN + b'{"data": [{"id": "m", "owned_by": "x\\u001b[2J\\ny"}]}', version))
    assert (server.version, target.model) == ("", "m")
    assert server.owned_by == r"x\x1b[2J y"


def test_depth_is_counted_in_levels_not_in_brackets():
    flat = {"data": [{"text": "[[[{{{" * 50} for _ in range(100)]}
    assert read_json(json.dumps(flat)) == flat
    assert read_json(MAX_DEPTH * "[" + MAX_DEPTH * "]") is not None
    with pytest.raises(ValueError, match="nested more than 32 levels"):
        read_json((MAX_DEPTH + 1) * "[" + (MAX_DEPTH + 1) * "]")


def test_lines_that_end_in_any_way_are_lines():
    stream, parts = AnswerStream(), [b"data: {", b'"choices": []}\r', b"\n: a\rdata: [DO", b"NE]\n\ndata: x"]

    async def body():
        for part in parts:
            yield part

    async def read():
        return [line async for lines in read_lines(httpx.Response(200, content=body())) for line in lines if line]

    lines = asyncio.run(read())
    assert lines == ['data: {"choices": []}', ": a", "data: [DONE]", "data: x"]
    for line in lines[:-1]:
        stream.feed(line, 0.0)
    assert stream.problem(1, None)[0] == "no usage report"
