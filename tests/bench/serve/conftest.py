"""A real HTTP server in a thread that answers like an OpenAI-compatible one, or misbehaves as a test asks for."""

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from vico_eval.cli import main

REQUESTS, ROUNDS, WARMUP = 10, 2, 1
"""What `run` asks for unless a test says otherwise."""

NUM_PROBES = 2
"""Requests that come before the load: the longest and the shortest prompt."""


@dataclass
class FakeServer:
    """Counts a token a byte, as the built-in tokenizer does, and answers with one token a piece."""

    name: str = "fake"
    models: tuple[str, ...] = ("tiny",)
    every: int = 1
    """Which requests of the load misbehave: each of so many."""

    fault: str = ""
    delay_s: float = 0.0
    key: str | None = None
    """That requests have to bring; an answer without says which one came."""

    adds: int = 0
    """Tokens counted besides the prompt's."""

    log: list = field(default_factory=list)
    """Names of servers in the order of their requests; may be shared."""

    bodies: list = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""

    def refusal(self, request):
        """The answer to a request without the key; None to others."""
        came = request.headers.get("authorization", "no key")
        if self.key is None or came == f"Bearer {self.key}":
            return None
        return JSONResponse({"error": f"{'.' * 265} wrong: {came}"}, status_code=401)

    async def list_models(self, request):
        if refusal := self.refusal(request):
            return refusal
        return JSONResponse({"data": [{"id": model, "owned_by": "tests"} for model in self.models]})

    async def answer(self, request):
        body = await request.json()
        if refusal := self.refusal(request):
            return refusal
        if body["model"] not in self.models:
            return JSONResponse({"error": f"there is no {body['model']} here"}, status_code=404)
        self.bodies.append(body)
        self.log.append(self.name)
        number = len(self.bodies) - NUM_PROBES
        fault = self.fault if number > 0 and number % self.every == 0 else ""
        if fault == "503":
            return PlainTextResponse("out of memory, try later", status_code=503)
        if fault == "no stream":
            return JSONResponse({"choices": [{"text": "a"}]})
        return StreamingResponse(self.stream(body, fault), media_type="text/event-stream")

    async def stream(self, body, fault):
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(30 if fault == "hangs" else self.delay_s)
            num_tokens = {"empty": 0, "ignores max_tokens": 40}.get(fault, body["max_tokens"])
            is_chat = "messages" in body
            for place in range(num_tokens):
                piece = {"delta": {"content": "a"}} if is_chat else {"text": "a"}
                yield self.event(choices=[piece | {"finish_reason": "length" if place == num_tokens - 1 else None}])
                if fault == "cuts":
                    raise ConnectionResetError
            if fault == "stream error":
                yield 'data: {"error": {"message": "cuda says no"}}\n\n'
                return
            if num_tokens == 0:
                yield self.event(choices=[{"text": "", "finish_reason": "stop"}])
            prompt = 1000 if is_chat else len(body["prompt"]) + self.adds + (fault == "miscounts")
            usage = {"prompt_tokens": prompt, "completion_tokens": num_tokens}
            if fault == "negative usage":
                usage = dict.fromkeys(usage, -861601)
            if fault != "no usage":
                yield self.event(choices=[], usage=[1] if fault == "usage is a list" else usage)
            yield "data: [DONE]\n\n"
        finally:
            self.in_flight -= 1

    @staticmethod
    def event(**values):
        return f"data: {json.dumps(values)}\n\n"

    def settings_asked(self):
        """How often each length of prompt was asked for, probes included."""
        return Counter(len(body["prompt"]) for body in self.bodies)


@pytest.fixture
def make_server():
    """FakeServer; `made` has them all."""

    def make(**settings):
        make.made.append(FakeServer(**settings))
        return make.made[-1]

    make.made = []
    return make


@pytest.fixture
def start_server():
    """Starts a FakeServer on a free port and says its address; ends it behind the test."""
    running = []

    def start(server):
        routes = [Route("/v1/models", server.list_models)]
        routes += [
            Route(f"/v1/{path}", server.answer, methods=["POST"]) for path in ("completions", "chat/completions")
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level=60, timeout_graceful_shutdown=0)
        runner = uvicorn.Server(config)
        thread = threading.Thread(target=runner.run, daemon=True)
        thread.start()
        while not runner.started:
            assert thread.is_alive()
            time.sleep(0.01)
        server.url = f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
        running.append((runner, thread))
        return server

    yield start
    for runner, thread in running:
        runner.should_exit = runner.force_exit = True
        thread.join()


@pytest.fixture
def run(capsys, tmp_path):
    """Runs the command; exit status, stderr, and the summary if there is one."""

    def command(*arguments, tokenizer="vico-tiny-base"):
        options = ["--requests", REQUESTS, "--rounds", ROUNDS, "--concurrency", 4, "--warmup", WARMUP]
        options += ["--out", tmp_path / "out", *(["--tokenizer", tokenizer] if tokenizer else [])]
        status = 0
        try:
            main(["throughput", "serve", *map(str, options), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        summary = tmp_path / "out" / "summary.json"
        written = json.loads(summary.read_text()) if summary.exists() else None
        return status, " ".join(capsys.readouterr().err.split()), written

    return command
