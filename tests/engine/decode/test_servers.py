"""vLLM servers that fail, hang, lie or go away: real HTTP, a server that only pretends to be vLLM."""

import asyncio
import base64
import io
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass, field

import pytest
import torch
import uvicorn
from loguru import logger
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from vico_eval.engine.decode.backend import Backend, EmbeddedPrompt
from vico_eval.engine.decode.probe import Probe
from vico_eval.engine.decode.servers import NoServer, Servers, read_addresses
from vico_eval.engine.requests import GenerationSettings
from vico_eval.errors import ConfigError
from vico_eval.server_address import Address

WIDTH, END = 4, 7
ROOM = 32


@dataclass
class Pretends:
    """Answers a prompt of N embeddings with the tokens N and END."""

    fault: str = ""
    when: str = "load"
    """Whether the fault shows at the probe, in the load, or in what it says of itself."""

    url: str = ""
    bodies: list = field(default_factory=list)

    async def version(self, request):
        return JSONResponse({"version": "0.32.0"})

    async def models(self, request):
        if self.fault == "two models":
            return JSONResponse({"data": [{"id": "a"}, {"id": "b"}]})
        if self.fault == "no vllm":
            return JSONResponse({"data": [{"id": "a", "owned_by": "somebody"}]})
        if self.fault == "a page":
            return PlainTextResponse("<html>\x1b[2Jhello</html>")
        return JSONResponse({"data": [{"id": "tiny", "root": "/nowhere", "max_model_len": ROOM}]})

    async def tokenize(self, request):
        if self.fault == "no tokens":
            return JSONResponse({"tokens": None})
        return JSONResponse({"tokens": [END + (self.fault == "other tokens")]})

    async def health(self, request):
        if self.fault == "hangs":
            await asyncio.sleep(30)
        return Response()

    async def complete(self, request):
        body = await request.json()
        is_probe = body["max_tokens"] == 1
        if not is_probe:
            self.bodies.append(body)
        if self.fault and is_probe == (self.when == "probe") and (answer := await self.misbehave(body)):
            return answer
        if "prompt" in body:
            return self.said([len(body["prompt"])])
        embeddings = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"])), weights_only=True)
        assert embeddings.untyped_storage().nbytes() == embeddings.nbytes  # no more is sent than what is meant
        return self.said([len(embeddings), END][: body["max_tokens"]])

    async def misbehave(self, body):
        if self.fault == "500":
            return PlainTextResponse("CUDA error: \x1b[31mout of memory", status_code=500)
        if self.fault == "500 once" and len(self.bodies) == 1:
            return PlainTextResponse("hiccup", status_code=500)
        if self.fault == "404":
            return PlainTextResponse("the model does not exist", status_code=404)
        if self.fault == "400":
            return JSONResponse({"error": {"message": "You must set `--enable-prompt-embeds`"}}, status_code=400)
        if self.fault == "other weights" and "prompt" in body:
            return self.said([99])
        if self.fault == "no ids":
            return JSONResponse({"choices": [{"text": "a"}]})
        if self.fault == "wrong ids":
            return self.said([-1, 2.5])
        if self.fault == "empty":
            return self.said([])
        if self.fault == "aborts":
            return self.said([1], "abort")
        if self.fault == "huge":
            return PlainTextResponse("x" * (65 * 2**20))
        if self.fault == "deep":
            return PlainTextResponse("[" * 100_000)
        if self.fault == "hangs":
            await asyncio.sleep(30)
        return None

    @staticmethod
    def said(tokens, reason="stop"):
        return JSONResponse({"choices": [{"index": 0, "text": "", "token_ids": tokens, "finish_reason": reason}]})

    def serve(self):
        routes = [
            *(Route("/version", self.version), Route("/v1/models", self.models), Route("/health", self.health)),
            *(
                Route("/tokenize", self.tokenize, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
            ),
        ]
        self.runner = uvicorn.Server(
            uvicorn.Config(Starlette(routes=routes), port=0, log_level=60, timeout_graceful_shutdown=0)
        )
        self.thread = threading.Thread(target=self.runner.run, daemon=True)
        self.thread.start()
        while not self.runner.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.runner.servers[0].sockets[0].getsockname()[1]}"

    def stop(self):
        self.runner.should_exit = self.runner.force_exit = True
        self.thread.join()


@pytest.fixture
def serve():
    running = []

    def start(**settings):
        running.append(Pretends(**settings))
        running[-1].serve()
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def open_backend():
    """Gives a backend of servers; closes it."""
    opened = []

    def start(*servers, watch_s=0.2):
        probe = Probe(
            checkpoint="vico-tiny",
            sha256="tensors:0",
            prompts=[([1, 2, 3], torch.zeros(3, WIDTH)), ([1, 2], torch.zeros(2, WIDTH))],
            end=("<|im_end|>", END),
        )
        addresses = [Address.parse(server.url) for server in servers]
        opened.append(Backend(Servers(addresses, probe, watch_s=watch_s)))
        return opened[-1]

    yield start
    for backend in opened:
        backend.close()


@pytest.fixture
def said():
    """Warnings, as they come."""
    words = []
    sink = logger.add(words.append, level="WARNING")
    yield words
    logger.remove(sink)


def prompt(length, **settings):
    return EmbeddedPrompt(
        key=f"t/test/{length}",
        embeddings=torch.ones(length, WIDTH),
        settings=GenerationSettings(**{"max_new_tokens": 8, **settings}),
        seed=5,
        stop_ids=[END],
    )


def tokens(backend, *lengths):
    return [future.result(timeout=60).tokens for future in [backend.submit(prompt(length)) for length in lengths]]


def test_every_parameter_is_said(serve, open_backend):
    server = serve()
    backend = open_backend(server)
    assert tokens(backend, 3) == [[3, END]]
    sampled = prompt(30, do_sample=True, temperature=0.5, top_p=0.9, top_k=20, until=("\n",))
    assert backend.submit(sampled).result(timeout=60).tokens == [30, END]
    greedy, drawn = ({name: body[name] for name in body if name != "prompt_embeds"} for body in server.bodies)
    always = {"min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
    always |= {"stop_token_ids": [END], "return_token_ids": True, "model": "tiny"}
    assert greedy == {**always, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "stop": [], "max_tokens": 8}
    # Two tokens are left of what the server has room for.
    chance = {"temperature": 0.5, "top_p": 0.9, "top_k": 20, "seed": 5, "stop": ["\n"]}
    assert drawn == {**always, **chance, "max_tokens": ROOM - 30}
    assert backend.facts["version"] == "0.32.0"
    assert backend.facts["servers"][0]["max_model_len"] == ROOM


def test_a_prompt_beyond_the_server_s_room_has_no_answer(serve, open_backend):
    with pytest.raises(ValueError, match="its prompt has 32 tokens and vLLM was started for 32"):
        open_backend(serve()).submit(prompt(ROOM)).result(timeout=60)


@pytest.mark.parametrize(
    ("fault", "when", "message"),
    [
        ("two models", "self", "does not respond like a vLLM server with one model"),
        ("no vllm", "self", "does not respond like a vLLM server with one model"),
        ("a page", "self", "does not respond like a vLLM server with one model"),
        ("other tokens", "self", r"it may serve another model: <\|im_end\|> is \[8\] there and \[7\] here"),
        ("no tokens", "self", r"<\|im_end\|> is \[\] there"),
        ("other weights", "probe", "it may serve another model: ids give token 99 and their embeddings 3"),
        ("400", "probe", "Start the server with --enable-prompt-embeds"),
        ("500", "probe", "can't decode for vico-tiny; .*answered 500: CUDA error"),
        ("no ids", "probe", "can't decode for vico-tiny; .*an answer can't be used"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_before_the_first_document(serve, open_backend, fault, when, message):
    with pytest.raises(ConfigError, match=message) as refused:
        open_backend(serve(fault=fault, when=when))
    assert "\x1b" not in str(refused.value)


def test_no_server_is_refused(serve, open_backend):
    server = serve()
    server.stop()
    with pytest.raises(ConfigError, match=r"no vLLM server responds at http://127.0.0.1.*export-decoder"):
        open_backend(server)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no ids", "vLLM failed 3 times; the last: an answer can't be used"),
        ("wrong ids", "token_ids are not integers"),
        ("empty", "token_ids are not integers"),
        ("aborts", "it ended by 'abort', not stop or length"),
        ("huge", "more than"),
        ("deep", "JSON"),
    ],
)
def test_an_answer_that_is_none_fails_its_document_only(serve, open_backend, fault, message):
    server = serve(fault=fault)
    backend = open_backend(server)
    with pytest.raises(RuntimeError, match=message):
        backend.submit(prompt(2)).result(timeout=60)
    server.fault = ""
    assert tokens(backend, 5) == [[5, END]]


def test_a_prompt_that_is_refused_is_not_asked_again(serve, open_backend):
    server = serve(fault="400")
    with pytest.raises(ValueError, match="answered 400"):
        open_backend(server).submit(prompt(2)).result(timeout=60)
    assert len(server.bodies) == 1


def test_an_error_of_the_server_s_is_asked_again(serve, open_backend):
    server = serve(fault="500 once")
    assert tokens(open_backend(server), 3, 4) == [[3, END], [4, END]]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("fault", ["500", "hangs"])
def test_a_server_that_only_fails_is_dropped_and_the_others_answer(serve, open_backend, said, fault):
    bad, good = serve(fault=fault), serve()
    backend = open_backend(bad, good)
    lengths = [1 + number % 20 for number in range(40)]
    assert tokens(backend, *lengths) == [[length, END] for length in lengths]
    assert bad.bodies
    assert any("is dropped" in words and bad.url in words for words in said)
    assert "1 of 2 vLLM servers were lost" in backend.closing_words()
    assert bad.url in backend.closing_words()
    assert "\x1b" not in "".join(said)


def test_where_no_server_is_left_what_is_asked_ends(serve, open_backend):
    server = serve(fault="hangs")
    backend = open_backend(server)
    futures = [backend.submit(prompt(length)) for length in (1, 2)]
    wait(futures, timeout=60)
    for future in futures:
        with pytest.raises(NoServer, match=r"no vLLM server is left .*repeat the command, and it resumes"):
            future.result(timeout=0)


def test_a_prompt_that_always_fails_takes_no_server_with_it(serve, open_backend):
    server = serve(fault="500")
    backend = open_backend(server)
    with pytest.raises(RuntimeError, match=r"vLLM failed 3 times; .*answered 500"):
        backend.submit(prompt(2)).result(timeout=60)
    server.fault = ""
    assert tokens(backend, 5) == [[5, END]]
    assert backend.closing_words() is None


def test_a_server_that_refuses_everything_is_no_black_hole(serve, open_backend, said):
    bad, good = serve(fault="404"), serve()
    backend = open_backend(bad, good)
    assert tokens(backend, *[3] * 40) == [[3, END]] * 40
    assert any("is dropped" in words and bad.url in words for words in said)


def test_prompts_go_to_the_server_with_the_fewest(serve, open_backend):
    servers = [serve(), serve(), serve()]
    tokens(open_backend(*servers), *[3] * 30)
    assert all(5 <= len(server.bodies) <= 15 for server in servers)


def test_addresses(tmp_path):
    def shown(text):
        return [address.shown for address in read_addresses(text)]

    assert shown("http://a:8000") == ["http://a:8000"]
    assert shown("http://a:8000/http://b:8000/v1/https://c") == ["http://a:8000", "http://b:8000", "https://c"]
    assert shown("http://a:8000/http://a:8000/v1") == ["http://a:8000"]
    file = tmp_path / "servers"
    file.write_text("http://a:8000\n\nhttp://b:8000/v1\n")
    assert shown(str(file)) == ["http://a:8000", "http://b:8000"]
    file.write_text("")
    with pytest.raises(ConfigError, match="names 0 servers"):
        read_addresses(str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="can't be read"):
        read_addresses(str(file))
    for bad in ("", "a:8000", "ftp://a", "http://a:99999", "http://"):
        with pytest.raises(ConfigError, match=r"no server answers at|names 0"):
            read_addresses(bad)


def test_a_password_is_not_shown(serve, open_backend):
    server = serve(fault="two models")
    server.url = server.url.replace("//", "//user:secret99@")
    with pytest.raises(ConfigError) as refused:
        open_backend(server)
    assert "secret99" not in str(refused.value)
