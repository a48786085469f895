"""Asks one server: which model it serves, and single requests as streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from vico_eval.bench.serve.answer import CUT, REFUSED, TIMEOUT, AnswerStream, Outcome
from vico_eval.bench.serve.workload import Request
from vico_eval.errors import ConfigError

MAX_WORDS = 300
"""Characters of a server's own words that are kept."""

LOOK_S = 30.0
"""Within which a server has to say what it serves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What a server says of itself."""

    name: str
    url: str
    model: str
    is_listed: bool
    """Whether it lists the model. `transformers serve` lists the hub's cache, not what it was started with."""

    owned_by: str = ""
    """The engine, as vLLM, LMDeploy and SGLang say it there."""

    version: str = ""
    """From `/version`, which vLLM has."""

    def as_record(self) -> dict[str, Any]:
        """For the summary."""
        return asdict(self)


class Client:
    """Sends requests to one server.

    Args:
        server: which.
        connections: for all servers, one a request in flight.
        max_tokens: of every answer.
        timeout_s: for a whole answer.
        zero: what clocks start from, in `time.perf_counter`'s seconds.
        key: that the connections send, to be kept out of what is written.
    """

    def __init__(
        self,
        server: Server,
        connections: list[httpx.AsyncClient],
        *,
        max_tokens: int,
        timeout_s: float,
        zero: float,
        key: str | None,
    ) -> None:
        self.server = server
        self.max_tokens = max_tokens
        self.timeout_s = timeout_s
        self.failures_in_a_row = 0
        self._key = key
        self._idle = connections
        self._zero = zero

    async def ask(self, request: Request) -> Outcome:
        """Send a request and read its answer; whatever goes wrong is in the outcome."""
        body = request.body | {
            "model": self.server.model,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        stream = AnswerStream()
        sent = time.perf_counter()
        try:
            status, words = await asyncio.wait_for(self._exchange(request.path, body, stream), self.timeout_s)
            if status:
                failure = status
            else:
                failure, words = stream.problem(self.max_tokens, request.prompt_tokens)
        except asyncio.TimeoutError:
            failure, words = TIMEOUT, f"no end of the answer within {self.timeout_s:g} s"
        except httpx.ConnectError as error:
            failure, words = REFUSED, str(error)
        except httpx.HTTPError as error:
            failure, words = CUT, f"{type(error).__name__}: {error}"
        self.failures_in_a_row = self.failures_in_a_row + 1 if failure else 0
        return Outcome(
            sent_s=sent - self._zero,
            latency_s=time.perf_counter() - sent,
            first_token_s=None if stream.first_at is None else stream.first_at - sent,
            last_token_s=None if stream.last_at is None else stream.last_at - sent,
            prompt_tokens=stream.prompt_tokens,
            output_tokens=stream.output_tokens,
            failure=failure,
            words=self._kept(words),
        )

    def _kept(self, words: str) -> str:
        """The first of a server's words, without the key: some say which one they refuse."""
        return (words.replace(self._key, "(key)") if self._key else words)[:MAX_WORDS]

    async def _exchange(self, path: str, body: dict[str, Any], stream: AnswerStream) -> tuple[str, str]:
        """Feed the stream; a status other than 200, and the server's words with it."""
        http = self._idle.pop()
        try:
            async with http.stream("POST", self.server.url + path, json=body) as response:
                if response.status_code != 200:
                    return f"HTTP {response.status_code}", (await response.aread()).decode("utf-8", errors="replace")
                async for line in response.aiter_lines():
                    stream.feed(line, time.perf_counter())
            return "", ""
        finally:
            self._idle.append(http)


@asynccontextmanager
async def open_connections(number: int, key: str | None) -> AsyncIterator[list[httpx.AsyncClient]]:
    """So many clients for a request at a time.

    One client with as many connections would look at all of them at each step of each request. They go around proxies,
    which would be measured, too.

    Args:
        number: of clients.
        key: sent as bearer token with every request; None sends none.
    """
    tls, headers = httpx.create_ssl_context(), {} if key is None else {"Authorization": f"Bearer {key}"}
    async with AsyncExitStack() as stack:
        clients = [httpx.AsyncClient(headers=headers, timeout=None, verify=tls, trust_env=False) for _ in range(number)]
        yield [await stack.enter_async_context(client) for client in clients]


async def look_at(http: httpx.AsyncClient, name: str, url: str, model: str | None) -> Server:
    """What a server serves.

    Args:
        http: an open client.
        name: of the server in tables.
        url: its address, with or without `/v1`.
        model: to ask for; None takes the only one that it lists.

    Raises:
        ConfigError: no server there, or not one model to choose from.
    """
    url = url.rstrip("/").removesuffix("/v1")
    try:
        answer = await http.get(f"{url}/v1/models", timeout=LOOK_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"no server answers at {url} ({type(error).__name__}: {error}). Start it, wait until it says that it "
            "listens, and give the address that it names, such as http://localhost:23333."
        ) from error
    owners = _owners(answer)
    if model is None and len(owners) != 1:
        if answer.status_code == 401:
            raise ConfigError(
                f"the server at {url} wants another API key (HTTP 401). Name the environment variable that holds it "
                "with --api-key-env."
            )
        said = f"{len(owners)} models: {', '.join(owners)}" if owners else f"no model (HTTP {answer.status_code})"
        raise ConfigError(f"the server at {url} lists {said}. Say with --model which one to ask.")
    chosen = next(iter(owners)) if model is None else model
    return Server(
        name=name,
        url=url,
        model=chosen,
        is_listed=chosen in owners,
        owned_by=owners.get(chosen, ""),
        version=await _version(http, url),
    )


def _owners(answer: httpx.Response) -> dict[str, str]:
    """The models of `/v1/models` and whose they are; none if it is no list.

    `transformers serve` fails there where the hub's cache is empty, and answers requests all the same.
    """
    try:
        return {str(entry["id"]): str(entry.get("owned_by") or "") for entry in answer.json()["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


async def _version(http: httpx.AsyncClient, url: str) -> str:
    try:
        answer = await http.get(f"{url}/version", timeout=LOOK_S)
        return str(answer.json()["version"]) if answer.status_code == 200 else ""
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""
